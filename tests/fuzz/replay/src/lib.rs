//! Takes the place of libFuzzer in every landing: a target gets each file of the directories that it is given, and each
//! of them changed in a number of ways, always the same. That needs no instrumented build, which takes minutes; it finds
//! what an input that was kept has found before, and little else.

use std::{
    fmt::Write as _,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

/// Changed inputs for each file: thousands for each target, in a second or two of an unoptimized build.
const CHANGES: u64 = 100;

/// Octets that stand at limits and in markup.
const NOTABLE: [u8; 12] = [0, 1, 0x7F, 0x80, 0xC0, 0xFF, b'\n', b'"', b'[', b'.', b'0', b' '];

/// Defines the program of a target. The parameter is `&[u8]`, or `&str`, which leaves out what is no UTF-8.
#[macro_export]
macro_rules! fuzz_target {
    (|$input:ident: &[u8]| $body:expr) => {
        /// The targets say `no_main`, because libFuzzer brings its own.
        #[unsafe(no_mangle)]
        extern "C" fn main() -> i32 {
            $crate::replay(|$input: &[u8]| $body)
        }
    };
    (|$input:ident: &str| $body:expr) => {
        $crate::fuzz_target!(|input: &[u8]| if let Ok($input) = std::str::from_utf8(input) {
            $body
        });
    };
}

/// Shows a target the inputs of the directories and files that the command line names. Returns the status of the program.
pub fn replay(target: impl Fn(&[u8])) -> i32 {
    let mut inputs: Vec<Vec<u8>> = vec![Vec::new()];
    let mut paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    while let Some(path) = paths.pop() {
        match fs::read_dir(&path) {
            Ok(entries) => paths.extend(entries.flatten().map(|entry| entry.path())),
            Err(_) => inputs.extend(fs::read(&path)),
        }
    }
    inputs.sort();
    let mut shown = 0;
    for input in &inputs {
        for number in 0..=CHANGES {
            let other = &inputs[usize::try_from(number).unwrap_or_default() % inputs.len()];
            let input = changed(input, other, number);
            shown += 1;
            if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
                println!("this input broke the target:\nprintf '{}'", written(&input));
                return 1;
            }
        }
    }
    println!("{shown} inputs from {} files", inputs.len() - 1);
    0
}

/// An input changed in one to four places; as it is for number 0.
fn changed(input: &[u8], other: &[u8], number: u64) -> Vec<u8> {
    let mut input = input.to_vec();
    let mut chance = number;
    for _ in 0..number.min(1 + number % 4) {
        let place = draw(&mut chance, input.len() + 1);
        match draw(&mut chance, 6) {
            0 => input.truncate(place),
            1 => input.insert(place, NOTABLE[draw(&mut chance, NOTABLE.len())]),
            2 if place < input.len() => _ = input.remove(place),
            3 if place < input.len() => input[place] = NOTABLE[draw(&mut chance, NOTABLE.len())],
            4 if place < input.len() => input[place] ^= 1 << draw(&mut chance, 8),
            _ => {
                let from = draw(&mut chance, other.len() + 1);
                input.splice(place.., other[from..].iter().copied());
            }
        }
    }
    input
}

/// A number below `end`, by SplitMix64.
fn draw(chance: &mut u64, end: usize) -> usize {
    *chance = chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*chance ^ (*chance >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    // The remainder is below `end`.
    usize::try_from((mixed ^ (mixed >> 31)) % end.max(1) as u64).unwrap_or_default()
}

fn written(input: &[u8]) -> String {
    let mut text = String::new();
    for octet in input {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\x{octet:02x}");
    }
    text
}
