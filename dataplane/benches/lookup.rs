//! What a hit costs before any byte is sent on: the alias and the model looked up, the local copy taken, and
//! the concrete id spliced into a message of 1 KiB.

#![allow(missing_docs, clippy::unwrap_used)] // the macros write functions; a benchmark may

use std::hint::black_box;

use _native::message::{Rope, extract, splice};
use _native::table::{Copies, Table};
use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};

fn table(count: usize) -> Table {
    let table = Table::default();
    let names: Vec<_> =
        (0..count).map(|n| (format!("model-{n}__isvc-0123456789"), format!("model-{n}"))).collect();
    table.update(
        1,
        names.iter().map(|(id, _)| (id.as_str(), Some(Copies { local: true, ..Copies::default() }))),
        names.iter().map(|(id, alias)| (alias.as_str(), Some(vec![(id.as_str().into(), 100)]))),
    );
    table
}

/// `ModelInferRequest`s of 1 KiB for models all over the table.
fn requests(count: usize) -> Vec<Rope> {
    let request = |number: usize| {
        let name = format!("model-{number}");
        let mut message = vec![0x0a, u8::try_from(name.len()).unwrap()];
        message.extend(name.as_bytes());
        message.extend([0x3a, 0x80, 0x08]);
        message.extend([7; 1024]);
        Rope::from(Bytes::from(message))
    };
    (0..1024).map(|_| request(fastrand::usize(..count))).collect()
}

fn lookup(criterion: &mut Criterion) {
    for (name, count) in [("20k", 20_000), ("200k", 200_000)] {
        let (table, requests) = (table(count), requests(count));
        let mut turn = 0;
        criterion.bench_function(&format!("lookup_splice_{name}"), |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % requests.len();
                let request = &requests[turn];
                let name = extract(request, &[1]).unwrap().unwrap();
                let model = table.model_of(std::str::from_utf8(&name).unwrap()).unwrap();
                let used = table.pick_local(&model).unwrap();
                black_box((splice(request, &[1], &model.id).unwrap(), used));
            });
        });
    }
}

criterion_group!(benches, lookup);
criterion_main!(benches);
