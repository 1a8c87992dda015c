# SINO's commands. "make help" lists them.
#
# Everything that is downloaded or built lies under target/. SINO_MIRROR=URL installs Debian from that archive.

MAKEFLAGS += --no-print-directory
# Debian keeps some tools where only root's PATH leads.
export PATH := $(PATH):/usr/sbin:/sbin
TARGET   := x86_64-unknown-linux-gnu
PROGRAMS := target/$(TARGET)/release
# Root is needed to make the Debian tree (its files belong to root) and to keep their owners in the image.
SUDO     := $(shell [ "$$(id -u)" = 0 ] || echo sudo --preserve-env=SINO_MIRROR,SOURCE_DATE_EPOCH,SINO_QEMU_ACCEL)
# Cargo as root, for tests that mount; with files of its own, so that it leaves none of root's in yours.
ROOT_CARGO := $(if $(SUDO),$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" "CARGO_TARGET_DIR=$(CURDIR)/target/as-root") cargo
# Tests of stage two that need root, and that plain "cargo test" and "cargo clippy --all-targets" leave out.
ROOT_TESTS := $(addprefix --test ,network_namespace dhcp_server storage_images identity_power_cut guests_ping guests_lane)
QUIET    := $(if $(CI),--quiet)

.PHONY: help demo test test-long check fuzz fuzz-short iso programs tools qemu bench bench-check bench-report bench-tools clean

help:
	@echo "make demo     build the ISO and boot it in QEMU with guests, its console in this terminal"
	@echo "              (DEMO=headless waits until the guests are ready, prints the times and ends)"
	@echo "make test     run every test (make check, then the QEMU scenarios)"
	@echo "make check    format, lints, unit and namespace tests, documentation"
	@echo "make iso      build target/sino/sino.iso"
	@echo "make qemu     only the QEMU scenarios; SCENARIO=text runs those with the text in their name"
	@echo "make test-long  scenarios that take too long for make test"
	@echo "make fuzz     fuzz the parsers, FUZZ_SECONDS (300) each; PARSER=name runs that one"
	@echo "make bench    measure SINO beside other live systems; hours. WHAT=stage-one|loader|to-ram|guests|scale|shutdown|"
	@echo "              image|trust measures that; BENCH=\"--short --rounds N --only TEXT\". If it is ended, the next one goes on;"
	@echo "              BENCH=--fresh measures anew"
	@echo "make bench-report  make docs/BENCHMARKS.md and its pictures from what was measured"
	@echo "make bench-check   two rounds of stage one; fails if it has become slower than qemu-tests/bench-bounds.toml allows"
	@echo "make tools    install the Debian packages that this needs"

tools:
	@image/install-tools
	@[ "$$(id -u)" = 0 ] || command -v sudo >/dev/null || { \
	    echo "root is needed to make the Debian tree and to test mounts: run this as root, or install sudo" >&2; exit 1; }
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust with rustup, then open a new shell" >&2; exit 1; }

# The boot stages: static programs, because the initramfs has no libraries. The target must be named, or the flag
# would also reach the procedural macros, which cannot be static.
programs: tools
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target $(TARGET) \
	    -p sino-initramfs -p sino-init -p sino-qemu-tests --bins
	cargo build --locked --release -p sino-image --bins

iso: programs
	$(SUDO) target/release/sino-image build $(QUIET) $(if $(CONFIG),--config $(CONFIG))

demo: iso
	$(SUDO) target/release/sino-image demo-disk
	target/release/sino-image demo $(if $(filter headless,$(DEMO)),--headless)

check: tools
	cargo fmt --all --check
	cargo fmt --manifest-path initramfs/fuzz/Cargo.toml --check
	CARGO_TARGET_DIR=target/fuzz cargo clippy --locked --release --manifest-path initramfs/fuzz/Cargo.toml -- -D warnings
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked -p sino-init -p sino-initramfs -p sino-image $(ROOT_TESTS) --test namespace --test lvm_oracle --test built --test guests_disk -- -D warnings
	cargo test --locked --workspace
	$(ROOT_CARGO) test --locked -p sino-initramfs --test namespace --test lvm_oracle
	$(ROOT_CARGO) test --locked -p sino-init $(ROOT_TESTS)
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet

qemu: iso
	$(if $(SCENARIO),,$(ROOT_CARGO) test --locked -p sino-image --test built --test guests_disk)
	$(ROOT_CARGO) test --locked -p sino-qemu-tests --test scenarios -- $(SCENARIO)

test: check fuzz-short qemu

# Parsers of what comes from outside, each with a fuzz target. The corpus stays under target/.
fuzz: tools
	initramfs/fuzz/run $(or $(FUZZ_SECONDS),300) $(PARSER)

fuzz-short: tools
	initramfs/fuzz/run 3

test-long: iso
	$(if $(SUDO),$(ROOT_CARGO:cargo=SINO_TEST_LONG=only cargo),SINO_TEST_LONG=only cargo) test --locked -p sino-qemu-tests --test scenarios -- $(SCENARIO)

# The bench: not part of make test, but its own unit tests are. As root, because it mounts and takes files out of caches.
SINO_BENCH := run --locked --quiet -p sino-qemu-tests --example sino-bench --

bench-tools: tools
	@image/install-tools bench

MEASURES := all stage-one loader to-ram guests scale shutdown image trust
ifneq ($(filter-out $(MEASURES),$(WHAT)),)
    $(error WHAT=$(WHAT) is no measure of the bench; there are: $(MEASURES))
endif
ifneq ($(word 2,$(WHAT)),)
    $(error WHAT takes one measure, not "$(WHAT)"; make bench measures all of them)
endif

bench: iso bench-tools
	$(ROOT_CARGO) $(SINO_BENCH) $(or $(WHAT),all) $(BENCH)

bench-check: iso bench-tools
	$(ROOT_CARGO) $(SINO_BENCH) check

bench-report:
	cargo $(SINO_BENCH) report

clean:
	@! mountpoint -q target/bench/work/native-copy/tmpfs || $(SUDO) umount target/bench/work/native-copy/tmpfs
	$(SUDO) rm -rf target
