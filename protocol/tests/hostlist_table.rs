//! Every row of tests/vectors/tables/hostlist.json, captured from a real Flux.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/table.rs"]
mod table;

use flux_protocol::hostlist::{HostIndex, Hostlist, HostlistError};
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn every_captured_row_gives_the_real_answer() {
    table::check("hostlist.json", |row| match row.op() {
        "decode" => decode(row),
        "delete" => pair(row, |list, hosts| {
            let deleted = list.delete(hosts)?;
            Ok(json!({"encode": list.encode(), "deleted": deleted}))
        }),
        "index" => pair(row, |list, hosts| Ok(json!(list.indices(hosts)?))),
        "find" => pair(row, |list, host| Ok(json!(list.find(host)?))),
        op => Err(format!("unknown op {op}")),
    });
}

fn decode(row: &table::Row) -> Result<(), String> {
    let input = row.input().as_str().unwrap();
    let list = Hostlist::decode(input);
    let Some(out) = row.out() else {
        let error = list.map_or_else(|e| e.to_string(), |list| format!("accepted as {list}"));
        return table::same("errmsg", error.as_str(), row.errmsg());
    };
    let list = list.map_err(|e| e.to_string())?;
    let (mut sorted, mut unique) = (list.clone(), list.clone());
    sorted.sort();
    unique.uniq();
    for (key, expected) in out.as_object().unwrap() {
        let ours = match key.as_str() {
            "encode" => json!(list.encode()),
            "count" => json!(list.count()),
            "expand" => json!(list.iter().collect::<Vec<_>>()),
            "sort" => json!(sorted.encode()),
            "uniq" => json!(unique.encode()),
            other => return Err(format!("unknown key {other}")),
        };
        table::same(key, &ours, expected)?;
    }
    Ok(())
}

/// The operations on a list and the hosts of a second text. Errors are compared by errno, or by
/// text where the capture has one of its own.
fn pair(
    row: &table::Row,
    op: fn(&mut Hostlist, &str) -> Result<Value, HostlistError>,
) -> Result<(), String> {
    let [list, hosts] = row.input().as_array().unwrap().as_slice() else { panic!("two inputs") };
    let mut list = Hostlist::decode(list.as_str().unwrap()).unwrap();
    match (op(&mut list, hosts.as_str().unwrap()), row.out()) {
        (Ok(ours), Some(real)) => table::same("out", &ours, real),
        (Ok(ours), None) => Err(format!("accepted as {ours}")),
        (Err(e), Some(_)) => Err(e.to_string()),
        (Err(e), None) => match row.get("errno") {
            None => table::same("errmsg", e.to_string().as_str(), row.errmsg()),
            Some(errno) => table::same("errno", &json!(errno_of(&e)), errno),
        },
    }
}

fn errno_of(error: &HostlistError) -> i32 {
    match error {
        HostlistError::Invalid(_) | HostlistError::HostName(_) => 22,
        HostlistError::NotFound(_) | HostlistError::NotFoundMany(_) => 2,
    }
}

#[test]
fn ten_thousand_hosts_are_one_run_and_found_at_once() {
    let mut list = Hostlist::new();
    (0..10_000).for_each(|n| list.push_host(&format!("node{n:05}.rack")));
    let index = HostIndex::new(&list);
    assert_eq!(index.find("node09999.rack"), Some(9999));
    assert_eq!(list.delete("node[00000-09998].rack").unwrap(), 9999);
    assert_eq!(list.encode(), "node09999.rack");
    assert_eq!(Hostlist::decode("node[0-9999]").unwrap().nth(4321).unwrap(), "node4321");
}

#[test]
fn overlapping_ranges_sort_into_neighbouring_duplicates() {
    let sorted = |text| {
        let mut list = Hostlist::decode(text).unwrap();
        list.sort();
        list.encode()
    };
    assert_eq!(sorted("n[5-7],n[6-8]"), "n[5-6,6-7,7-8]");
    assert_eq!(sorted("n[1-2],n1"), "n[1,1-2]");
    assert_eq!(
        sorted("n[1-100],n[50-60]"),
        "n[1-50,50-51,51-52,52-53,53-54,54-55,55-56,56-57,57-58,58-59,59-60,60-100]"
    );
}

#[test]
fn hosts_that_would_fill_memory_are_refused() {
    assert!(Hostlist::decode("n[0-1048575]").is_ok());
    assert!(Hostlist::decode("n[0-1048576]").is_err());
    assert!(Hostlist::decode("n[0-18446744073709551615]").is_err());
    assert!(Hostlist::decode("n[0-1000000]x,n[0-1000000]y").is_err());
}

#[test]
fn unknown_hosts_are_named_at_bounded_cost() {
    let known = Hostlist::decode("n[0-99]").unwrap();
    let check = |text: &str| known.check_known(&Hostlist::decode(text).unwrap());
    assert!(check("n[5-7],n5").is_ok());
    assert_eq!(check("n7,x").unwrap_err().to_string(), "host 'x' not found");
    assert_eq!(check("y,x,n1").unwrap_err().to_string(), "hosts 'y,x' not found");
    // Half a billion hosts in five thousand characters.
    let many = vec!["n[0-999999]"; 500].join(",");
    assert_eq!(check(&many).unwrap_err().to_string(), "hosts 'n[100-4195]' not found");
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{1,2}", "[ab]0?[0-9]{1,2}", "[ab]0?[0-9]x", "0?[0-9]"]
}

fn expand(list: &Hostlist) -> Vec<String> {
    list.iter().collect()
}

proptest! {
    #[test]
    fn any_list_survives_encoding(hosts in prop::collection::vec(host(), 0..30)) {
        let list: Hostlist = hosts.iter().collect();
        prop_assert_eq!(&expand(&list), &hosts);
        let decoded = Hostlist::decode(&list.encode()).unwrap();
        prop_assert_eq!(&expand(&decoded), &hosts);
        prop_assert_eq!(&decoded.encode(), &list.encode());
        prop_assert_eq!(list.count(), hosts.len() as u64);
        let json = serde_json::to_string(&list).unwrap();
        prop_assert_eq!(&expand(&serde_json::from_str(&json).unwrap()), &hosts);
    }

    #[test]
    fn sort_keeps_every_host_and_uniq_none_twice(hosts in prop::collection::vec(host(), 0..30)) {
        let mut list: Hostlist = hosts.iter().collect();
        list.sort();
        let mut ours = expand(&list);
        let again = { let mut again = list.clone(); again.sort(); again };
        prop_assert_eq!(&again.encode(), &list.encode());
        let mut all = hosts.clone();
        all.sort();
        ours.sort();
        prop_assert_eq!(ours, all.clone());
        list.uniq();
        let mut unique = expand(&list);
        unique.sort();
        all.dedup();
        prop_assert_eq!(unique, all);
    }

    #[test]
    fn index_and_find_agree_with_a_plain_search(hosts in prop::collection::vec(host(), 0..30), probe in host()) {
        let list: Hostlist = hosts.iter().collect();
        let plain = hosts.iter().position(|host| *host == probe).map(|n| n as u64);
        prop_assert_eq!(list.find(&probe).ok(), plain);
        prop_assert_eq!(HostIndex::new(&list).find(&probe), plain);
    }

    #[test]
    fn delete_removes_first_occurrences(hosts in prop::collection::vec(host(), 0..20), gone in prop::collection::vec(host(), 0..20)) {
        let mut list: Hostlist = hosts.iter().collect();
        let mut model = hosts;
        let before = model.len();
        for host in &gone {
            if let Some(at) = model.iter().position(|h| h == host) {
                model.remove(at);
            }
        }
        let deleted = list.delete_list(&gone.iter().collect());
        prop_assert_eq!(deleted as usize, before - model.len());
        prop_assert_eq!(expand(&list), model);
    }

    #[test]
    fn decoding_never_panics(text in "[ab\\[\\], 0-9-]{0,24}|\\PC*") {
        if let Ok(mut list) = Hostlist::decode(&text)
            && list.count() < 5000
        {
            let hosts = expand(&list);
            prop_assert_eq!(list.count(), hosts.len() as u64);
            list.sort();
            list.uniq();
            prop_assert!(list.count() <= hosts.len() as u64);
        }
    }
}
