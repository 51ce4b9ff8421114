//! The tree of banks and users with what they were granted and have used.

use std::fmt::Write as _;

use flux_protocol::real::format_g;

use crate::fairshare::Node;

const HEADERS: [&str; 5] = ["Account", "Username", "RawShares", "RawUsage", "Fairshare"];

/// `flux account-shares`: in columns, or with a delimiter in between.
pub(crate) fn print(root: &Node, delimiter: Option<char>, out: &mut String) {
    let mut headers = HEADERS.map(str::to_owned);
    write_line(&mut headers, delimiter, out);
    line(root, &root.name, 0, delimiter, out);
}

/// A node and those below; `bank` is the node's own name, or that of the user's bank.
fn line(node: &Node, bank: &str, depth: usize, delimiter: Option<char>, out: &mut String) {
    let account = format!("{}{bank}", " ".repeat(depth));
    let (shares, usage) = (node.shares.to_string(), node.usage.to_string());
    if node.is_user {
        let fairshare = format_g(node.fairshare, 6);
        write_line(&mut [account, node.name.clone(), shares, usage, fairshare], delimiter, out);
    } else {
        write_line(&mut [account, String::new(), shares, usage], delimiter, out);
    }
    for child in &node.children {
        let bank = if child.is_user { &node.name } else { &child.name };
        line(child, bank, depth + 1, delimiter, out);
    }
}

fn write_line(fields: &mut [String], delimiter: Option<char>, out: &mut String) {
    for (at, field) in fields.iter().enumerate() {
        // A String takes all that is written to it.
        let _ = match delimiter {
            Some(delimiter) if at > 0 => write!(out, "{delimiter}{field}"),
            Some(_) => write!(out, "{field}"),
            None if at == 0 => write!(out, "{field:<20}"),
            None => write!(out, "{field:>20}"),
        };
    }
    out.push('\n');
}
