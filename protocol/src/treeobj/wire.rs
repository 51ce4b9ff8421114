//! The JSON form of a tree object, read in one pass.

use super::{Base64, Dir, Symlink, Treeobj};
use crate::blobref::Blobref;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

const VERSION: i64 = 1;

impl Serialize for Treeobj {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Keys in byte order, here and in Symlink below.
        let mut object = serializer.serialize_map(Some(3))?;
        match self {
            Self::Val(data) => object.serialize_entry("data", data.as_str())?,
            Self::Valref(blobs) | Self::Dirref(blobs) => object.serialize_entry("data", blobs)?,
            Self::Dir(entries) => object.serialize_entry("data", entries)?,
            Self::Symlink(link) => object.serialize_entry("data", link)?,
        }
        object.serialize_entry("type", self.type_name())?;
        object.serialize_entry("ver", &VERSION)?;
        object.end()
    }
}

impl Serialize for Symlink {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        if let Some(namespace) = &self.namespace {
            object.serialize_entry("namespace", namespace)?;
        }
        object.serialize_entry("target", &self.target)?;
        object.end()
    }
}

impl<'de> Deserialize<'de> for Treeobj {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TreeobjVisitor)
    }
}

struct TreeobjVisitor;

impl<'de> Visitor<'de> for TreeobjVisitor {
    type Value = Treeobj;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with data, type and ver")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Treeobj, A::Error> {
        let (mut data, mut kind, mut version) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "data" => data = Some(map.next_value::<Data>()?),
                "type" => kind = Some(map.next_value::<String>()?),
                "ver" => version = Some(map.next_value::<i64>()?),
                _ => return Err(A::Error::unknown_field(&key, &["data", "type", "ver"])),
            }
        }
        let kind = kind.ok_or_else(|| A::Error::missing_field("type"))?;
        let data = data.ok_or_else(|| A::Error::missing_field("data"))?;
        match version {
            Some(VERSION) => data.into_treeobj(&kind).map_err(A::Error::custom),
            Some(other) => Err(A::Error::custom(format_args!("unknown version {other}"))),
            None => Err(A::Error::missing_field("ver")),
        }
    }
}

/// The data member, read before its type is known.
enum Data {
    Text(String),
    List(Vec<String>),
    Object(Vec<(String, Member)>),
}

/// A member of a data object: an entry of a directory or a part of a symlink.
enum Member {
    Text(String),
    Node(Treeobj),
    /// Symlinks may have members that nobody knows.
    Other,
}

// === impl Data ===

impl Data {
    fn into_treeobj(self, kind: &str) -> Result<Treeobj, String> {
        match (kind, self) {
            ("val", Self::Text(data)) => Ok(Treeobj::Val(Base64(data))),
            ("valref", Self::List(refs)) => Ok(Treeobj::Valref(blobrefs(&refs)?)),
            ("dirref", Self::List(refs)) => Ok(Treeobj::Dirref(blobrefs(&refs)?)),
            ("dir", Self::Object(members)) => Ok(Treeobj::Dir(dir(members)?)),
            ("symlink", Self::Object(members)) => Ok(Treeobj::Symlink(symlink(members)?)),
            ("val" | "valref" | "dirref" | "dir" | "symlink", _) => {
                Err(format!("wrong data for a {kind}"))
            }
            _ => Err(format!("unknown type '{kind}'")),
        }
    }
}

fn blobrefs(refs: &[String]) -> Result<Vec<Blobref>, String> {
    if refs.is_empty() {
        return Err("at least one blobref is needed".into());
    }
    refs.iter().map(|text| text.parse::<Blobref>().map_err(|e| e.to_string())).collect()
}

fn dir(members: Vec<(String, Member)>) -> Result<Dir, String> {
    members
        .into_iter()
        .map(|(name, member)| match member {
            Member::Node(node) => Ok((name, node)),
            _ => Err(format!("entry '{name}' is not a tree object")),
        })
        .collect()
}

fn symlink(members: Vec<(String, Member)>) -> Result<Symlink, String> {
    let (mut namespace, mut target) = (None, None);
    for (name, member) in members {
        match (name.as_str(), member) {
            ("namespace", Member::Text(text)) => namespace = Some(text),
            ("target", Member::Text(text)) => target = Some(text),
            ("namespace" | "target", _) => return Err(format!("{name} must be a string")),
            _ => {}
        }
    }
    Ok(Symlink { namespace, target: target.ok_or("a symlink needs a target")? })
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an array of blobrefs, or an object")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Data, E> {
        Ok(Data::Text(text.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Data, E> {
        Ok(Data::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Data, A::Error> {
        let mut refs = Vec::new();
        while let Some(text) = seq.next_element()? {
            refs.push(text);
        }
        Ok(Data::List(refs))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Data, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Data::Object(members))
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MemberVisitor)
    }
}

struct MemberVisitor;

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tree object or a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Member, E> {
        Ok(Member::Text(text.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Member, E> {
        Ok(Member::Text(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Member, A::Error> {
        TreeobjVisitor.visit_map(map).map(Member::Node)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Member, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Member::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_unit<E>(self) -> Result<Member, E> {
        Ok(Member::Other)
    }
}
