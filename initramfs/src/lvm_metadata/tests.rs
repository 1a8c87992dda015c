use super::*;
use proptest::prelude::*;

const ID: &str = "AAAAAABBBBCCCCDDDDEEEEFFFFGGGGGG";

fn number_at(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn sealed(sector: &mut [u8], from: usize, at: usize) {
    let crc = crc32(CRC_SEED, &sector[from..512]);
    sector[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

fn pv() -> Vec<u8> {
    let mut head = vec![0; HEAD];
    let sector = &mut head[512..1024];
    sector[..8].copy_from_slice(b"LABELONE");
    sector[8] = 1;
    sector[20] = 32;
    sector[24..32].copy_from_slice(b"LVM2 001");
    sector[32..64].copy_from_slice(ID.as_bytes());
    number_at(sector, 72, 1 << 20);
    number_at(sector, 104, 4096);
    number_at(sector, 112, 1 << 16);
    sealed(sector, 20, 16);
    head
}

fn area(offset: u64, length: u64, flags: u8) -> Vec<u8> {
    let mut header = vec![0; AREA_HEADER];
    header[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
    header[20] = 1;
    number_at(&mut header, 40, offset);
    number_at(&mut header, 48, length);
    header[60] = flags;
    sealed(&mut header, 4, 0);
    header
}

#[test]
fn a_label_names_the_volume_and_its_metadata_areas() {
    let head = pv();
    assert_eq!(label(&head), Some(Label { pv_uuid: ID.to_owned(), metadata_areas: vec![(4096, 1 << 16)] }));
    let mut damaged = head.clone();
    damaged[600] ^= 1;
    assert_eq!(label(&damaged), None);
    assert_eq!(label(&head[512..]), None, "a label says in which sector it is");
    assert_eq!(label(&head[..1000]), None);
}

#[test]
fn a_text_may_wrap_round_the_end_of_its_area() {
    let place = (4096, 65_536);
    assert_eq!(text_pieces(place, &area(512, 1000, 0)), Some(vec![(4608, 1000)]));
    assert_eq!(text_pieces(place, &area(65_024, 1000, 0)), Some(vec![(69_120, 512), (4608, 488)]));
    assert_eq!(text_pieces(place, &area(1024, 65_025, 0)), None, "longer than the ring");
    assert_eq!(text_pieces(place, &area(512, 1000, 1)), None, "ignored");
    assert_eq!(text_pieces(place, &area(0, 0, 0)), None, "no volume group");
    assert_eq!(text_pieces((4096, 1 << 40), &area(512, LONGEST_TEXT + 1, 0)), None);
    assert_eq!(text_pieces((u64::MAX, 65_536), &area(512, 1000, 0)), None);
    let mut damaged = area(512, 1000, 0);
    damaged[100] = 1;
    assert_eq!(text_pieces(place, &damaged), None);
}

#[test]
fn a_changed_text_is_noticed() {
    let mut header = area(512, 4, 0);
    header[56..60].copy_from_slice(&crc32(CRC_SEED, b"text").to_le_bytes());
    assert!(is_whole(&header, b"text"));
    assert!(!is_whole(&header, b"tex!"));
    // The check value that every description of CRC-32 gives.
    assert_eq!(!crc32(!0, b"123456789"), 0xcbf4_3926);
}

const TEXT: &str = r#"# a comment
vg0 {
seqno = 7
extent_size = 8192
flags = []
physical_volumes {
    pv0 { id = "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa" pe_start = 2048 device = "/dev/a \"b\" \\" }
    pv1 { id = "bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb"	# tab
          pe_start = 4096 }
}
logical_volumes {
    root {
        status = ["READ", "WRITE"]
        segment2 { start_extent = 10 extent_count = 6 type = "striped" stripe_size = 128
                   stripes = ["pv0", 20, "pv1", 0] }
        segment1 { start_extent = 0 extent_count = 10 type = "striped" stripes = ["pv1", 3] }
    }
    thin { segment1 { start_extent = 0 extent_count = 10 type = "thin" transaction_id = -1 } }
    moving { segment1 { start_extent = 0 extent_count = 1 type = "striped" stripes = ["pvmove0", 3] } }
    pvmove0 { segment1 { start_extent = 0 extent_count = 1 type = "mirror" } }
    gap { segment1 { start_extent = 1 extent_count = 1 type = "striped" stripes = ["pv1", 3] } }
    odd { segment1 { start_extent = 0 extent_count = 3 type = "striped" stripes = ["pv0", 3, "pv1", 3] } }
    far { segment1 { start_extent = 0 extent_count = 1 type = "striped" stripes = ["pv0", 18446744073709551615] } }
    none { }
    cow { segment1 { start_extent = 0 extent_count = 1 type = "striped" stripes = ["pv1", 3] } }
    snapshot0 { segment1 { start_extent = 0 extent_count = 1 type = "snapshot" origin = "root" cow_store = "cow" } }
}
}
contents = "Text Format Volume Group"
version = 1
"#;

#[test]
fn a_text_becomes_targets() {
    let group = parse(&format!("{TEXT}\0")).unwrap();
    assert_eq!((group.name.as_str(), group.seqno, group.extent_sectors), ("vg0", 7, 8192));
    let id = |c: &str| c.repeat(32);
    assert_eq!(group.physical["pv1"], Physical { id: id("b"), pe_start: 4096 });
    let linear = Mapping::Linear { pv_id: id("b"), start: 4096 + 3 * 8192 };
    let stripes = vec![(id("a"), 2048 + 20 * 8192), (id("b"), 4096)];
    assert_eq!(
        group.targets("root").unwrap(),
        [
            Target { start: 0, length: 81_920, mapping: linear },
            Target { start: 81_920, length: 49_152, mapping: Mapping::Striped { chunk: 128, stripes } },
        ]
    );
}

#[test]
fn what_cannot_be_mapped_is_named() {
    let group = parse(TEXT).unwrap();
    for (lv, why) in [
        ("thin", "it is of type \"thin\"; only linear and striped volumes can carry a medium"),
        ("cow", "it is a snapshot; only linear and striped volumes can carry a medium"),
        ("moving", "its data lies on volume pvmove0, not on a disk (is a pvmove unfinished?)"),
        ("gap", "a gap or an overlap at extent 0"),
        ("odd", "3 extents cannot be divided by 2 stripes"),
        ("far", "an extent is out of range"),
        ("none", "it has no segments"),
    ] {
        let error = format!("{:#}", group.targets(lv).unwrap_err());
        assert_eq!(error, format!("logical volume vg0/{lv}: {why}"));
    }
    let error = format!("{:#}", group.targets("x").unwrap_err());
    let there = "cow, far, gap, moving, none, odd, pvmove0, root, snapshot0, thin";
    assert_eq!(error, format!("logical volume vg0/x: there is no such volume; the volume group has: {there}"));
    let merging = TEXT.replace("cow_store", "merging_store");
    let error = format!("{:#}", parse(&merging).unwrap().targets("root").unwrap_err());
    assert!(error.contains("being merged with a snapshot"), "{error}");
}

#[test]
fn errors_give_the_line() {
    let error = |text: &str| format!("{:#}", parse(text).unwrap_err());
    assert_eq!(error(""), "the text has no volume group");
    assert_eq!(error("\n#\nvg {\n a = 1\n"), "line 3: the section that begins here does not end");
    assert_eq!(error("vg {\n\n}"), "line 1: the section has no number \"seqno\"");
    assert_eq!(error("vg {\n a ]"), "line 2: neither '=' nor '{' after \"a\"");
    assert_eq!(error("vg {\n a = ? }"), "line 2: unexpected '?'");
    assert_eq!(error("vg { a = \"\n\" b = \"x"), "line 2: the quoted text that begins here does not end");
    assert_eq!(error("a = [1, 2"), "line 1: no ',' between values");
    assert_eq!(error("a = [1,\n"), "line 1: the list that begins here does not end");
    assert_eq!(error("a ="), "line 1: the text ends too early");
    assert_eq!(error(&"a {\n".repeat(10_000)), "line 17: more than 16 sections in each other");
    let stripes = TEXT.replace("[\"pv1\", 3]", "[\"pv1\"]");
    assert_eq!(error(&stripes), "line 16: stripes are not pairs of a physical volume and an extent");
    assert_eq!(error(&TEXT.replace("8192", "0")), "line 2: extent_size is 0");
}

proptest! {
    #[test]
    fn no_label_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 488), offset in 0..600_u32) {
        let mut head = pv();
        head[536..1024].copy_from_slice(&bytes);
        head[532..536].copy_from_slice(&offset.to_le_bytes());
        head[536..544].copy_from_slice(b"LVM2 001");
        sealed(&mut head[512..1024], 20, 16);
        let _ = label(&head);
        let _ = label(&bytes);
    }

    #[test]
    fn no_area_makes_it_panic_or_leave_the_area(
        start in any::<u64>(), size in prop_oneof![0..100_000_u64, any::<u64>()],
        offset in prop_oneof![0..100_000_u64, any::<u64>()], length in prop_oneof![0..100_000_u64, any::<u64>()],
        rest in proptest::collection::vec(any::<u8>(), 0..512),
    ) {
        for (offset, length) in text_pieces((start, size), &area(offset, length, 0)).unwrap_or_default() {
            prop_assert!(offset >= start + 512 && offset + length <= start + size && length > 0);
        }
        let _ = text_pieces((start, size), &rest);
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn no_damage_to_a_text_makes_it_panic(
        cut in 0..TEXT.len(), skip in 0..200_usize,
        middle in proptest::sample::select(vec!["", "\"", "}", "{", "[", "]", "18446744073709551615", "0"]),
    ) {
        let text = format!("{}{middle}{}", &TEXT[..cut], TEXT.get(cut + skip..).unwrap_or_default());
        if let Ok(group) = parse(&text) {
            for lv in group.logical.keys() {
                let _ = group.targets(lv);
            }
        }
    }
}
