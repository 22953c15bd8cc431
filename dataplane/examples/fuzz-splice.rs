//! Compares extraction and splicing with the protobuf library on random and damaged messages:
//! `fuzz-splice [--executions N] [--seed S]`. It stops at the first difference and prints what repeats it.

#![allow(clippy::unwrap_used)] // a difference ends it anyway

use std::process::ExitCode;
use std::time::Instant;

use _native::message::{Malformed, Rope, extract, splice};
use bytes::Bytes;
use fastrand::Rng;
use prost::Message;

#[path = "../tests/node/mod.rs"]
mod node;
use node::{Node, chunked};

const PATHS: [&[u32]; 6] = [&[1], &[2000], &[2, 1], &[2, 2, 1], &[2, 2000], &[2, 2, 2, 2000]];

fn varint(mut value: u64, rng: &mut Rng, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    let last = (value & 0x7f) as u8;
    // Encoders may write more bytes than a number needs.
    if rng.u8(..) == 0 {
        to.extend([last | 0x80, 0]);
    } else {
        to.push(last);
    }
}

fn delimited(field: u64, content: &[u8], rng: &mut Rng, to: &mut Vec<u8>) {
    varint(field << 3 | 2, rng, to);
    varint(content.len() as u64, rng, to);
    to.extend_from_slice(content);
}

/// Any fields in any order, any number of times, groups and unknown fields included.
fn message(rng: &mut Rng, depth: u32, to: &mut Vec<u8>) {
    for _ in 0..rng.usize(0..6) {
        match rng.u8(..12) {
            0 | 1 => delimited(1, text(rng, 40).as_bytes(), rng, to),
            2 => delimited(2000, text(rng, 200).as_bytes(), rng, to),
            3..=5 if depth > 0 => {
                let mut child = Vec::new();
                message(rng, depth - 1, &mut child);
                delimited(2, &child, rng, to);
            }
            6 => {
                varint(3 << 3, rng, to);
                let number = rng.u64(..) >> rng.u32(..64);
                varint(number, rng, to);
            }
            7 => {
                let blob: Vec<u8> = (0..rng.usize(..300)).map(|_| rng.u8(..)).collect();
                delimited(4, &blob, rng, to);
            }
            8 => {
                varint(5 << 3 | 5, rng, to);
                to.extend(rng.u32(..).to_le_bytes());
            }
            9 => {
                varint(6 << 3 | 1, rng, to);
                to.extend(rng.u64(..).to_le_bytes());
            }
            10 if depth > 0 => {
                varint(15 << 3 | 3, rng, to);
                message(rng, depth - 1, to);
                varint(15 << 3 | 4, rng, to);
            }
            _ => delimited(17 + rng.u64(..3), text(rng, 10).as_bytes(), rng, to),
        }
    }
}

fn text(rng: &mut Rng, longest: usize) -> String {
    (0..rng.usize(..=longest)).map(|_| rng.choice(['a', 'b', 'é', '€', '😀']).unwrap_or('x')).collect()
}

fn damage(rng: &mut Rng, message: &mut Vec<u8>) {
    for _ in 0..rng.usize(..4) {
        if message.is_empty() {
            return;
        }
        let at = rng.usize(..message.len());
        match rng.u8(..4) {
            0 => message.truncate(at),
            1 => message.insert(at, rng.u8(..)),
            2 => drop(message.remove(at)),
            _ => message[at] = rng.u8(..),
        }
    }
}

fn read(rope: &Rope, path: &[u32]) -> Result<String, Malformed> {
    let found = extract(rope, path)?.unwrap_or_default();
    Ok(String::from_utf8(found.to_vec()).unwrap())
}

/// Whether the protobuf library accepted the message; what differs is the error.
fn compare(message: &[u8], path: &[u32], size: usize, value: &str) -> Result<bool, String> {
    let rope = chunked(message, size);
    let found = read(&rope, path);
    let spliced = splice(&rope, path, value);
    let Ok(mut expected) = Node::decode(message) else {
        // What is spliced all the same must not become something that means another model.
        if let Ok(spliced) = spliced
            && read(&spliced, path).is_ok_and(|read| read != value)
        {
            return Err("the spliced message carries another id".into());
        }
        return Ok(false);
    };
    let found = found.map_err(|error| format!("extract refuses what protobuf reads: {error}"))?;
    if found != *expected.text(path) {
        return Err(format!("extract reads {found:?}, protobuf {:?}", expected.text(path)));
    }
    value.clone_into(expected.text(path));
    let spliced = spliced.map_err(|error| format!("splice refuses what protobuf reads: {error}"))?;
    let length: usize = spliced.chunks().iter().map(Bytes::len).sum();
    if length != spliced.len() {
        return Err(format!("a rope of {length} bytes says {}", spliced.len()));
    }
    match Node::decode(spliced.to_bytes()) {
        Ok(decoded) if decoded == expected => Ok(true),
        Ok(decoded) => Err(format!("spliced is {decoded:?}, protobuf would make {expected:?}")),
        Err(error) => Err(format!("protobuf cannot read what was spliced: {error}")),
    }
}

fn run(executions: u64, seed: u64) -> Result<(), String> {
    let mut rng = Rng::with_seed(seed);
    let (mut read, begin) = (0_u64, Instant::now());
    for execution in 0..executions {
        let mut encoded = Vec::new();
        if rng.u8(..8) == 0 {
            encoded = (0..rng.usize(..60)).map(|_| rng.u8(..)).collect();
        } else {
            message(&mut rng, 3, &mut encoded);
            if rng.bool() {
                damage(&mut rng, &mut encoded);
            }
        }
        let path = PATHS[rng.usize(..PATHS.len())];
        let size = if rng.bool() { 1 + rng.usize(..50) } else { 1 << 20 };
        let value = text(&mut rng, 300);
        match compare(&encoded, path, size, &value) {
            Ok(accepted) => read += u64::from(accepted),
            Err(error) => {
                return Err(format!(
                    "execution {execution} of seed {seed}: {error}\n{path:?} {size} {encoded:02x?}"
                ));
            }
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{executions} executions of seed {seed} in {seconds:.1} s; protobuf could read {read} of the messages"
    );
    Ok(())
}

fn main() -> ExitCode {
    let (mut executions, mut seed) = (1_000_000, fastrand::u64(..));
    let mut arguments = std::env::args().skip(1);
    while let (Some(name), value) = (arguments.next(), arguments.next()) {
        match (name.as_str(), value.and_then(|value| value.parse().ok())) {
            ("--executions", Some(value)) => executions = value,
            ("--seed", Some(value)) => seed = value,
            _ => {
                eprintln!("usage: fuzz-splice [--executions N] [--seed S]");
                return ExitCode::from(2);
            }
        }
    }
    match run(executions, seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(difference) => {
            eprintln!("{difference}");
            ExitCode::FAILURE
        }
    }
}
