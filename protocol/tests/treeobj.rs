//! Tree objects, checked against directories that a real Flux stored and named.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/table.rs"]
mod table;

use flux_protocol::blobref::HashType;
use flux_protocol::treeobj::{Base64, Treeobj, TreeobjError};
use proptest::prelude::*;
use serde_json::json;

/// Root directories out of a real content store, with the names they had there.
const REAL_DIRS: [(&str, &str); 2] = [
    (
        "sha1-16f91e143725f7784f6bff563fb6863e6a03803a",
        r#"{"data":{"admin":{"data":["sha1-4349f13731a8d7c94aed961cd7affdba5c8c82e1"],"type":"dirref","ver":1}},"type":"dir","ver":1}"#,
    ),
    (
        "sha1-4e2618c73d586085757f2b3302a1c7946431b440",
        r#"{"data":{"admin":{"data":["sha1-4349f13731a8d7c94aed961cd7affdba5c8c82e1"],"type":"dirref","ver":1},"archive":{"data":["sha1-c0a9faf907dda6216fd73bf81d0b3b21a1a8cb91"],"type":"dirref","ver":1},"checkpoint":{"data":["sha1-9e42abf0e9e12b232f12350d4fe85d32a6c940f0"],"type":"dirref","ver":1},"job":{"data":["sha1-ef0993fd3cfd806833f3bdc37323b4f6fcd1c124"],"type":"dirref","ver":1},"resource":{"data":["sha1-e5afc8251218b16cc1a295f32316a4632451763b"],"type":"dirref","ver":1}},"type":"dir","ver":1}"#,
    ),
];

#[test]
fn directories_encode_to_the_blobs_that_flux_stores() {
    for (name, text) in REAL_DIRS {
        let encoded = Treeobj::decode(text.as_bytes()).unwrap().encode().unwrap();
        assert_eq!(encoded, text);
        assert_eq!(HashType::Sha1.hash(encoded.as_bytes()).to_string(), name);
    }
}

#[test]
fn every_value_of_a_real_job_fits_a_val() {
    for (name, job) in table::jobs() {
        for value in job["kvs"].as_object().unwrap().values() {
            let data = value.to_string().into_bytes();
            let val = Treeobj::val(&data);
            let again = Treeobj::decode(val.encode().unwrap().as_bytes()).unwrap();
            let Treeobj::Val(text) = &again else { panic!("{name}") };
            assert_eq!(text.decode().unwrap(), data);
            assert_eq!(text.data_len(), data.len());
        }
    }
}

#[test]
fn key_order_and_blanks_of_the_input_do_not_matter() {
    let text = r#" { "ver" : 1, "data": {"target":"b", "namespace":"a"}, "type":"symlink" } "#;
    let link = Treeobj::decode(text.as_bytes()).unwrap();
    assert_eq!(link, Treeobj::symlink(Some("a"), "b"));
    assert_eq!(
        link.encode().unwrap(),
        r#"{"data":{"namespace":"a","target":"b"},"type":"symlink","ver":1}"#
    );
    assert_eq!(
        Treeobj::symlink(None, "b").encode().unwrap(),
        r#"{"data":{"target":"b"},"type":"symlink","ver":1}"#
    );
}

#[test]
fn what_is_no_tree_object_is_refused() {
    let blob = HashType::Sha1.hash(b"").to_string();
    for bad in [
        json!(null),
        json!([]),
        json!({"ver": 1, "type": "val"}),
        json!({"ver": 1, "data": ""}),
        json!({"type": "val", "data": ""}),
        json!({"ver": 2, "type": "val", "data": ""}),
        json!({"ver": 1.0, "type": "val", "data": ""}),
        json!({"ver": 1, "type": "val", "data": "", "more": 1}),
        json!({"ver": 1, "type": "hdir", "data": {}}),
        json!({"ver": 1, "type": "val", "data": {}}),
        json!({"ver": 1, "type": "val", "data": 1}),
        json!({"ver": 1, "type": "valref", "data": []}),
        json!({"ver": 1, "type": "valref", "data": blob}),
        json!({"ver": 1, "type": "valref", "data": ["sha1-00"]}),
        json!({"ver": 1, "type": "dirref", "data": [blob, 1]}),
        json!({"ver": 1, "type": "dir", "data": {"a": "b"}}),
        json!({"ver": 1, "type": "dir", "data": {"a": 1}}),
        json!({"ver": 1, "type": "dir", "data": {"a": {"ver": 1}}}),
        json!({"ver": 1, "type": "symlink", "data": {}}),
        json!({"ver": 1, "type": "symlink", "data": {"target": 1}}),
        json!({"ver": 1, "type": "symlink", "data": {"target": "a", "namespace": {}}}),
    ] {
        assert!(Treeobj::decode(bad.to_string().as_bytes()).is_err(), "{bad}");
    }
    let odd = json!({"ver": 1, "type": "symlink", "data": {"target": "a", "more": [1]}});
    assert!(Treeobj::decode(odd.to_string().as_bytes()).is_ok());
    assert!(matches!(Treeobj::Valref(vec![]).encode(), Err(TreeobjError::NoBlobref("valref"))));
}

#[test]
fn broken_base64_is_found_when_the_bytes_are_wanted() {
    let val = Treeobj::decode(br#"{"ver":1,"type":"val","data":"%"}"#).unwrap();
    let Treeobj::Val(data) = val else { panic!() };
    assert!(data.decode().is_err());
    assert_eq!(Base64::new(b"").decode().unwrap(), b"");
}

#[test]
fn nesting_without_end_is_an_error_and_no_crash() {
    let open = r#"{"ver":1,"type":"dir","data":{"a":"#;
    assert!(Treeobj::decode(open.repeat(100_000).as_bytes()).is_err());
}

#[test]
fn large_values_are_cut_into_blobs() {
    let (valref, blobs) = Treeobj::valref_of(HashType::Sha1, b"abcde", 2);
    assert_eq!(blobs, [&b"ab"[..], b"cd", b"e"]);
    let expected: Vec<_> = blobs.iter().map(|blob| HashType::Sha1.hash(blob)).collect();
    assert_eq!(valref.blobrefs(), expected);
    let (empty, blobs) = Treeobj::valref_of(HashType::Sha256, b"", 2);
    assert_eq!((empty.count(), blobs), (1, vec![&b""[..]]));
}

fn treeobj() -> impl Strategy<Value = Treeobj> {
    let data = prop::collection::vec(any::<u8>(), 0..20);
    let leaf = prop_oneof![
        data.clone().prop_map(|data| Treeobj::val(&data)),
        (data.clone(), 1..9usize).prop_map(|(data, max)| Treeobj::valref_of(
            HashType::Sha1,
            &data,
            max
        )
        .0),
        data.prop_map(|data| Treeobj::dirref(HashType::Sha256.hash(&data))),
        (prop::option::of("\\PC{0,6}"), "\\PC{0,6}")
            .prop_map(|(ns, to)| Treeobj::symlink(ns.as_deref(), &to)),
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        prop::collection::btree_map("\\PC{0,6}|[\u{1}-\u{1f}]", inner, 0..5).prop_map(Treeobj::Dir)
    })
}

proptest! {
    #[test]
    fn any_tree_survives_encoding(tree in treeobj()) {
        let text = tree.encode().unwrap();
        prop_assert_eq!(&Treeobj::decode(text.as_bytes()).unwrap(), &tree);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&serde_json::from_value::<Treeobj>(value).unwrap(), &tree);
    }

    #[test]
    fn decoding_never_panics(bytes: Vec<u8>, tree in treeobj(), cut in 0..200usize) {
        let _ = Treeobj::decode(&bytes);
        let text = tree.encode().unwrap();
        let _ = Treeobj::decode(&text.as_bytes()[..cut.min(text.len())]);
    }
}
