use super::*;
use proptest::prelude::*;

fn head(pieces: &[(usize, &[u8])]) -> Vec<u8> {
    let mut head = vec![0; HEAD];
    for (at, bytes) in pieces {
        head[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    head
}

fn described(pieces: &[(usize, &[u8])]) -> Superblock {
    parse(&head(pieces)).unwrap_or_else(|| unnamed("nothing"))
}

fn is(kind: &'static str, label: &str, uuid: &str) -> Superblock {
    named(kind, label.to_owned(), uuid.to_owned())
}

const UUID: &[u8; 16] = b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef";
const DASHED: &str = "01234567-89ab-cdef-0123-456789abcdef";
/// 512-byte sectors, one a cluster, 32 reserved, two FATs of one sector, 16 root entries, 200 sectors.
const FAT16: &[u8] = b"\xeb\x3c\x90mkfs.fat\0\x02\x01\x20\0\x02\x10\0\xc8\0\xf8\x01\0";

#[test]
fn fields_at_fixed_places() {
    assert_eq!(described(&[]), unnamed("nothing"));
    assert_eq!(described(&[(0, b"XFSB"), (32, UUID), (108, b"data  \0x")]), is("xfs", "data", DASHED));
    assert_eq!(described(&[(1080, b"\x53\xef"), (1128, UUID), (1144, b"root")]), is("ext2/3/4", "root", DASHED));
    assert_eq!(described(&[(1080, b"\x53\xef"), (1048, &[7])]), unnamed("nothing"));
    assert_eq!(described(&[(65_600, b"_BHRfS_M"), (65_568, UUID)]), is("btrfs", "", DASHED));
    assert_eq!(described(&[(4086, b"SWAPSPACE2"), (1024, &[1]), (1036, UUID), (1052, b"s")]), is("swap", "s", DASHED));
    let raid = b"\xfc\x4e\x2b\xa9\x01\0\0\0";
    assert_eq!(described(&[(4096, raid), (4112, UUID), (4128, b"host:0")]), is("Linux RAID member", "host:0", DASHED));
    assert_eq!(described(&[(0, b"LUKS\xba\xbe\0\x01"), (168, DASHED.as_bytes())]), is("LUKS", "", DASHED));
    assert_eq!(
        described(&[(0, b"LUKS\xba\xbe\0\x02"), (24, b"secret"), (168, DASHED.as_bytes())]),
        is("LUKS", "secret", DASHED)
    );
    assert_eq!(described(&[(0, b"hsqs")]), is("squashfs", "", ""));
    assert_eq!(described(&[(32_769, b"BEA01"), (34_817, b"NSR03")]), is("udf", "", ""));
}

#[test]
fn an_iso_has_its_date_for_a_uuid() {
    let pvd: (usize, &[u8]) = (32_768, b"\x01CD001\x01");
    let label: (usize, &[u8]) = (32_808, b" SINO  ");
    assert_eq!(
        described(&[pvd, label, (33_598, b"2026112308000000"), (33_581, b"2025010100000000")]),
        is("iso9660", " SINO", "2026-11-23-08-00-00-00")
    );
    let unset: (usize, &[u8]) = (33_598, b"0000000000000000\0");
    assert_eq!(
        described(&[pvd, label, unset, (33_581, b"2025010100000000")]),
        is("iso9660", " SINO", "2025-01-01-00-00-00-00")
    );
    assert_eq!(described(&[pvd, unset, (33_581, b"no date at all\0\0")]), is("iso9660", "", ""));
}

#[test]
fn a_fat_has_two_labels_and_the_directorys_counts() {
    let boot: [(usize, &[u8]); 3] = [(0, FAT16), (38, b"\x29\x34\x12\xcd\xabBOOT LABEL FAT16   "), (510, b"\x55\xaa")];
    let with = |entry: &[u8]| described(&[boot[0], boot[1], boot[2], (34 * 512, entry)]);
    assert_eq!(with(b"STICK      \x08"), is("vfat", "STICK", "ABCD-1234"));
    assert_eq!(with(b"FILE    TXT\x20"), is("vfat", "", "ABCD-1234"));
    let short = &head(&boot)[..512];
    assert_eq!(parse(short).unwrap().label, "BOOT LABEL");
    let mut far = parse(short).unwrap();
    assert_eq!(far.label_place(short), Some((34 * 512, 512)));
    far.read_label(b"BAD\x1b[31m   \x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(far.label, "BAD?[31m");
    assert_eq!(described(&[boot[0], (43, b"NO NAME    "), boot[2]]), is("vfat", "", ""));
}

#[test]
fn boot_sectors_are_no_partition_tables() {
    assert_eq!(described(&[(510, b"\x55\xaa")]), is("MBR partition table", "", ""));
    assert_eq!(described(&[(510, b"\x55\xaa"), (446, &[7])]), unnamed("nothing"));
    assert_eq!(described(&[(510, b"\x55\xaa"), (512, b"EFI PART")]), is("GPT partition table", "", ""));
    assert_eq!(described(&[(510, b"\x55\xaa"), (4096, b"EFI PART")]), is("GPT partition table", "", ""));
    assert_eq!(described(&[(3, b"-FVE-FS-"), (510, b"\x55\xaa")]), is("BitLocker", "", ""));
    assert_eq!(described(&[(0, FAT16), (54, b"HPFS    "), (510, b"\x55\xaa")]), unnamed("MBR partition table"));
}

#[test]
fn what_is_cut_short_is_recognised_as_far_as_it_goes() {
    assert_eq!(parse(b"XFSB").unwrap(), unnamed("xfs"));
    assert_eq!(parse(b"hsqs").unwrap().kind, "squashfs");
    assert_eq!(parse(b"\xebR\x90NTFS    "), None);
}

const MAGICS: [(usize, &[u8]); 16] = [
    (0, b"\xfc\x4e\x2b\xa9\x01\0\0\0"),
    (512, b"LABELONE"),
    (0, b"LUKS\xba\xbe\0\x02"),
    (0, FAT16),
    (82, b"FAT32   "),
    (0, b"\xeb\x3c\x90mkfs.fat\0\x02\x01\x20\0\x02\0\0\0\0\xf8\0\0"),
    (4086, b"SWAPSPACE2"),
    (0, b"XFSB"),
    (1080, b"\x53\xef"),
    (32_768, b"\x01CD001\x01"),
    (34_817, b"NSR02"),
    (3, b"NTFS    \0\x02\x08"),
    (65_600, b"_BHRfS_M"),
    (3, b"EXFAT   "),
    (108, b"\x09\x03"),
    (510, b"\x55\xaa"),
];

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_put_control_characters_on_the_console(
        seed in proptest::collection::vec(any::<u8>(), 1..3000),
        length in 0..HEAD,
        magics in proptest::sample::subsequence(MAGICS.to_vec(), 0..4),
    ) {
        let mut head: Vec<u8> = seed.iter().copied().cycle().take(length).collect();
        for (at, magic) in magics {
            if let Some(place) = head.get_mut(at..at + magic.len()) {
                place.copy_from_slice(magic);
            }
        }
        if let Some(mut found) = parse(&head) {
            let _ = found.label_place(&head);
            found.read_label(&seed);
            prop_assert!(!found.label.chars().chain(found.uuid.chars()).any(char::is_control));
        }
    }

    #[test]
    fn no_file_record_makes_it_panic(
        mut record in proptest::collection::vec(any::<u8>(), 0..600),
        start in 0..80_u8,
    ) {
        if record.len() > 22 {
            record[..4].copy_from_slice(b"FILE");
            record[20..22].copy_from_slice(&[start, 0]);
        }
        let mut found = unnamed("ntfs");
        found.read_label(&record);
    }
}
