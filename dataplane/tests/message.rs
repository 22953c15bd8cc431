//! Extraction and splicing against prost, on hand-made and random messages.

#![allow(clippy::unwrap_used)] // a test may

use _native::message::{Malformed, Rope, extract, splice};
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

mod node;
use node::{Node, chunked};

const PATHS: [&[u32]; 5] = [&[1], &[2000], &[2, 1], &[2, 2, 1], &[2, 2, 2000]];

fn one(bytes: &[u8]) -> Rope {
    Rope::from(Bytes::copy_from_slice(bytes))
}

fn text(rope: &Rope, path: &[u32]) -> Result<Option<String>, Malformed> {
    Ok(extract(rope, path)?.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()))
}

#[test]
fn the_last_occurrence_wins() {
    let message = b"\x0a\x01a\x18\x05\x0a\x01b";
    assert_eq!(text(&one(message), &[1]), Ok(Some("b".into())));
    assert_eq!(
        splice(&one(message), &[1], "long").unwrap().to_bytes(),
        &b"\x0a\x01a\x18\x05\x0a\x04long"[..]
    );
}

#[test]
fn a_nested_field_is_looked_for_in_every_occurrence_of_its_message() {
    let message = b"\x12\x03\x0a\x01a\x12\x02\x18\x07";
    assert_eq!(text(&one(message), &[2, 1]), Ok(Some("a".into())));
    let spliced = Node::decode(splice(&one(message), &[2, 1], "xyz").unwrap().to_bytes()).unwrap();
    assert_eq!(spliced.child.unwrap(), Box::new(Node { name: "xyz".into(), number: 7, ..Node::default() }));
}

#[test]
fn an_absent_field_is_appended_with_the_messages_it_needs() {
    assert_eq!(text(&one(b""), &[2, 2, 1]), Ok(None));
    assert_eq!(splice(&one(b""), &[2, 2, 1], "a").unwrap().to_bytes(), &b"\x12\x05\x12\x03\x0a\x01a"[..]);
    assert_eq!(
        splice(&one(b"\x12\x02\x18\x07"), &[2, 1], "a").unwrap().to_bytes(),
        &b"\x12\x05\x18\x07\x0a\x01a"[..]
    );
}

#[test]
fn length_prefixes_grow_and_shrink() {
    let long = "x".repeat(300);
    for (before, after) in [("a", long.as_str()), (long.as_str(), "a"), ("a", "b"), ("a", "")] {
        let child = Node { name: before.into(), number: 9, ..Node::default() };
        let outer = Node { child: Some(Box::new(child)), far: "end".into(), ..Node::default() };
        let mut expected = outer.clone();
        *expected.text(&[2, 1]) = after.into();
        let spliced = splice(&one(&outer.encode_to_vec()), &[2, 1], after).unwrap();
        assert_eq!(Node::decode(spliced.to_bytes()).unwrap(), expected);
    }
}

#[test]
fn groups_are_skipped_even_where_they_contain_the_field() {
    let message = b"\x7b\x0a\x01a\x83\x01\x84\x01\x7c\x0a\x01b";
    assert_eq!(text(&one(message), &[1]), Ok(Some("b".into())));
    assert_eq!(text(&one(&message[..9]), &[1]), Ok(None));
}

#[test]
fn malformed_messages_are_refused() {
    for (message, expected) in [
        (&b"\x0a\x05abc"[..], Malformed::Overrun),
        (b"\x0a", Malformed::Truncated),
        (b"\x19abc", Malformed::Truncated),
        (b"\x12\x02\x0a\x05abcde", Malformed::Overrun),
        (b"\x12\x03\x18\x80\x80\x01", Malformed::Overrun),
        (b"\x02\x00", Malformed::Tag),
        (b"\x1f", Malformed::Tag),
        (b"\x7b\x0a\x01a", Malformed::Tag),
        (b"\x7c", Malformed::Tag),
        (b"\x08\x01", Malformed::WireType),
        (b"\x0a\x01\xff", Malformed::Utf8),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Malformed::Varint),
    ] {
        let path: &[u32] = if message[0] == 0x12 { &[2, 1] } else { &[1] };
        assert_eq!(text(&one(message), path), Err(expected), "{message:x?}");
    }
    let nested_groups = [vec![0x7b; 100_000], vec![0x7c; 100_000]].concat();
    assert_eq!(text(&one(&nested_groups), &[1]), Err(Malformed::Tag));
}

#[test]
fn the_body_is_shared_not_copied() {
    let blob = vec![7; 1 << 20];
    let message =
        Bytes::from(Node { name: "a".into(), blobs: vec![blob], ..Node::default() }.encode_to_vec());
    let spliced = splice(&Rope::from(message.clone()), &[1], "another").unwrap();
    let inside = message.as_ptr_range();
    assert!(
        spliced
            .chunks()
            .iter()
            .filter(|chunk| chunk.len() > 1024)
            .all(|chunk| inside.contains(&chunk.as_ptr()))
    );
}

fn fields(depth: u32) -> BoxedStrategy<Vec<u8>> {
    let leaf = prop_oneof![
        "[a-zé]{0,40}".prop_map(|name| Node { name, ..Node::default() }.encode_to_vec()),
        "[a-z]{0,200}".prop_map(|far| Node { far, ..Node::default() }.encode_to_vec()),
        any::<u64>().prop_map(|number| Node { number, ..Node::default() }.encode_to_vec()),
        any::<u32>().prop_map(|fixed32| Node { fixed32, ..Node::default() }.encode_to_vec()),
        any::<u64>().prop_map(|fixed64| Node { fixed64, ..Node::default() }.encode_to_vec()),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|blob| Node {
            blobs: vec![blob],
            ..Node::default()
        }
        .encode_to_vec()),
        Just(b"\x7b\x0a\x01x\x7c".to_vec()),
        Just(b"\x0a\x00".to_vec()),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    prop_oneof![
        3 => leaf,
        1 => message(depth - 1).prop_map(|child| {
            let mut field = vec![0x12];
            prost::encoding::encode_varint(child.len() as u64, &mut field);
            [field, child].concat()
        }),
    ]
    .boxed()
}

/// An encoded node: any fields in any order, any number of times.
fn message(depth: u32) -> BoxedStrategy<Vec<u8>> {
    prop::collection::vec(fields(depth), 0..6).prop_map(|fields| fields.concat()).boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn extraction_agrees_with_the_decoder(message in message(3), path in prop::sample::select(&PATHS[..]), size in 1usize..50) {
        let mut decoded = Node::decode(message.as_slice()).unwrap();
        let found = text(&chunked(&message, size), path).unwrap().unwrap_or_default();
        prop_assert_eq!(&found, decoded.text(path));
    }

    #[test]
    fn splicing_changes_the_field_and_nothing_else(
        message in message(3),
        path in prop::sample::select(&PATHS[..]),
        value in "[a-z]{0,300}",
        size in 1usize..2000,
    ) {
        let mut expected = Node::decode(message.as_slice()).unwrap();
        expected.text(path).clone_from(&value);
        let spliced = splice(&chunked(&message, size), path, &value).unwrap();
        prop_assert_eq!(spliced.len(), spliced.chunks().iter().map(Bytes::len).sum::<usize>());
        prop_assert_eq!(Node::decode(spliced.to_bytes()).unwrap(), expected);
        prop_assert_eq!(text(&spliced, path).unwrap().unwrap_or_default(), value);
    }

    #[test]
    fn what_the_decoder_accepts_is_not_malformed(
        mut message in message(2),
        path in prop::sample::select(&PATHS[..]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        size in 1usize..50,
    ) {
        if !message.is_empty() {
            for (index, byte) in changes {
                let at = index.index(message.len());
                message[at] = byte;
            }
        }
        let rope = chunked(&message, size);
        let found = text(&rope, path);
        if let Ok(mut decoded) = Node::decode(message.as_slice()) {
            prop_assert_eq!(&found.unwrap().unwrap_or_default(), decoded.text(path));
            let spliced = splice(&rope, path, "new").unwrap();
            "new".clone_into(decoded.text(path));
            prop_assert_eq!(Node::decode(spliced.to_bytes()).unwrap(), decoded);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), path in prop::sample::select(&PATHS[..])) {
        let rope = one(&bytes);
        if extract(&rope, path).is_ok() {
            let _ = splice(&rope, path, "value");
        }
    }
}
