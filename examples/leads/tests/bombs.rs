//! Files that are meant to hurt: a clear error, in time and within bounded memory. Alone in this process, since its memory is
//! what is measured.

use std::{
    fs,
    io::Cursor,
    time::{Duration, Instant},
};

use leads::read;

/// How long a file may keep a reader busy, and how much more memory it may take than the file.
const PATIENCE: Duration = Duration::from_secs(15);
const MEMORY_MIB: usize = 200;

/// A workbook with a directory that says that everything is small.
fn lying(mut bytes: Vec<u8>) -> Vec<u8> {
    for (signature, offset) in [(b"PK\x01\x02", 24), (b"PK\x03\x04", 22)] {
        let places: Vec<_> =
            bytes.windows(4).enumerate().filter(|(_, w)| w == signature).map(|(at, _)| at).collect();
        for at in places {
            let size = at + offset..at + offset + 4;
            let large = bytes
                .get(size.clone())
                .is_some_and(|s| u32::from_le_bytes(s.try_into().expect("four")) > 1 << 24);
            if large {
                bytes[size].copy_from_slice(&1_000_u32.to_le_bytes());
            }
        }
    }
    bytes
}

fn peak_mib() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number") / 1_024
}

#[test]
fn hostile_files_end_in_a_clear_error_in_time_and_within_bounded_memory() {
    let files = hostile::files();
    for (name, bytes, code) in files {
        let before = peak_mib();
        let lying = name.starts_with("xlsx, endless").then(|| lying(bytes.clone()));
        for (bytes, is_lying) in lying.map(|bytes| (bytes, true)).into_iter().chain([(bytes, false)]) {
            let begun = Instant::now();
            let error = read::read(Cursor::new(bytes), &mut |_| Ok(())).expect_err(name);
            // What lies may be found to be damaged before it is found to be large.
            assert!(
                error.code() == code || is_lying && error.code() == "workbook-damaged",
                "{name}: {error}"
            );
            assert!(begun.elapsed() < PATIENCE, "{name}: {:?}", begun.elapsed());
            let grown = peak_mib() - before;
            assert!(grown < MEMORY_MIB, "{name}: {grown} MiB");
        }
    }
}
