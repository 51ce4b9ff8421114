//! Every row of tests/vectors/tables/idset.json, captured from a real Flux.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/table.rs"]
mod table;

use flux_protocol::idset::{Idset, Style};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn every_captured_row_gives_the_real_answer() {
    table::check("idset.json", |row| match row.op() {
        "decode" => decode(row),
        "union" => algebra(row, Idset::union),
        "intersect" => algebra(row, Idset::intersect),
        "difference" => algebra(row, Idset::difference),
        op => Err(format!("unknown op {op}")),
    });
}

fn decode(row: &table::Row) -> Result<(), String> {
    let input = row.input().as_str().unwrap();
    let Some(out) = row.out() else {
        return match Idset::decode(input) {
            Err(_) => {
                table::same("errmsg", &format!("IDset(): Invalid argument: {input}"), row.errmsg())
            }
            Ok(set) => Err(format!("accepted as {set}")),
        };
    };
    let set = Idset::decode(input).map_err(|e| e.to_string())?;
    for (key, expected) in out.as_object().unwrap() {
        let real = match key.as_str() {
            "encode" => Value::from(set.encode()),
            "range_brackets" => set.encode_with(Style { range: true, brackets: true }).into(),
            "plain" => set.encode_with(Style { range: false, brackets: false }).into(),
            "brackets" => set.encode_with(Style { range: false, brackets: true }).into(),
            "count" => set.count().into(),
            "first" => set.first().into(),
            "last" => set.last().into(),
            other => return Err(format!("unknown key {other}")),
        };
        table::same(key, &real, expected)?;
    }
    Ok(())
}

fn algebra(row: &table::Row, op: fn(&Idset, &Idset) -> Idset) -> Result<(), String> {
    let [a, b] = row.input().as_array().unwrap().as_slice() else { panic!("two inputs") };
    let set = |v: &Value| Idset::decode(v.as_str().unwrap()).unwrap();
    table::same("out", &Value::from(op(&set(a), &set(b)).encode()), row.out().unwrap())
}

#[test]
fn huge_ranges_cost_nothing() {
    let set = Idset::decode("0-2147483647").unwrap();
    assert_eq!(set.count(), 1 << 31);
    assert_eq!(set.difference(&Idset::decode("7").unwrap()).encode(), "0-6,8-2147483647");
    assert!(Idset::decode("0-4294967295").is_err());
    assert!(Idset::decode("1-18446744073709551616").is_err());
}

#[test]
fn decode_errors_say_which_element_is_wrong() {
    let error = |text| Idset::decode(text).unwrap_err().to_string();
    assert_eq!(error("1,x"), "error parsing range 'x'");
    assert_eq!(error("5,4"), "range '4' is out of order");
    assert_eq!(error("[1"), "mismatched or nested brackets");
}

fn ids() -> impl Strategy<Value = BTreeSet<u32>> {
    prop::collection::btree_set(prop_oneof![0..40u32, Just(i32::MAX as u32)], 0..40)
}

proptest! {
    #[test]
    fn any_set_survives_encoding(members in ids()) {
        let set: Idset = members.iter().copied().collect();
        prop_assert_eq!(&Idset::decode(&set.encode()).unwrap(), &set);
        let json = serde_json::to_string(&set).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Idset>(&json).unwrap(), &set);
        for brackets in [false, true] {
            let text = set.encode_with(Style { range: false, brackets });
            prop_assert_eq!(&Idset::decode(&text).unwrap(), &set);
        }
    }

    #[test]
    fn algebra_agrees_with_a_tree_of_integers(a in ids(), b in ids(), probe in 0..42u32) {
        let (x, y): (Idset, Idset) = (a.iter().copied().collect(), b.iter().copied().collect());
        let members = |set: &Idset| set.iter().collect::<Vec<_>>();
        prop_assert_eq!(members(&x.union(&y)), a.union(&b).copied().collect::<Vec<_>>());
        prop_assert_eq!(members(&x.intersect(&y)), a.intersection(&b).copied().collect::<Vec<_>>());
        prop_assert_eq!(members(&x.difference(&y)), a.difference(&b).copied().collect::<Vec<_>>());
        prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
        prop_assert_eq!(x.intersects(&y), !a.is_disjoint(&b));
        prop_assert_eq!(x.count(), a.len() as u64);
        prop_assert_eq!(x.contains(probe), a.contains(&probe));
        prop_assert_eq!(x.next(probe), a.range(probe + 1..).next().copied());
        prop_assert_eq!(x.prev(probe), a.range(..probe).next_back().copied());
        prop_assert_eq!(members(&x.lowest(3)), a.iter().copied().take(3).collect::<Vec<_>>());
        // Canonical: equal sets have equal ranges.
        prop_assert_eq!(&x.union(&y), &y.union(&x));
        prop_assert_eq!(&x.union(&y).difference(&y).union(&x.intersect(&y)), &x);
    }

    #[test]
    fn single_ids_come_and_go(a in ids(), steps in prop::collection::vec((any::<bool>(), 0..42u32), 0..60)) {
        let (mut set, mut model): (Idset, _) = (a.iter().copied().collect(), a);
        for (add, id) in steps {
            if add {
                prop_assert_eq!(set.insert(id), model.insert(id));
            } else {
                prop_assert_eq!(set.remove(id), model.remove(&id));
            }
            prop_assert_eq!(&set, &model.iter().copied().collect::<Idset>());
        }
        prop_assert_eq!(set.take_first(), model.pop_first());
    }

    #[test]
    fn decoding_never_panics(text in "[-0-9,\\[\\]]{0,24}|\\PC*") {
        if let Ok(set) = Idset::decode(&text) {
            prop_assert_eq!(Idset::decode(&set.encode()).unwrap(), set);
        }
    }
}
