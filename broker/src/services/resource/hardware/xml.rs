//! Reads cores and GPUs from hwloc XML.
//!
//! Only the outline of the text is looked at: which object is in which, their types, and the
//! `info` and attributes that matter. hwloc itself checks the rest.

use std::borrow::Cow;

use flux_protocol::idset::Idset;
use flux_protocol::r::Resources;

/// Backends of devices that compute; all but these are displays and the like.
const GPU_BACKENDS: [&str; 4] = ["CUDA", "NVML", "OpenCL", "RSMI"];

#[derive(Debug, thiserror::Error)]
pub enum XmlError {
    #[error("topology is not hwloc XML: {0}")]
    Malformed(&'static str),
    #[error("topology has no cores")]
    NoCores,
}

/// A start tag, an end tag, or one that is both.
#[derive(Debug, PartialEq)]
struct Tag<'a> {
    name: &'a str,
    attributes: &'a str,
    opens: bool,
    closes: bool,
}

/// An object that has begun and not ended.
#[derive(Debug)]
struct Object {
    is_os_device: bool,
    /// Number of the PCI device that it is, or is in.
    pci: Option<usize>,
    backend: Option<String>,
}

/// Cores are numbered in the order of the text, which is hwloc's logical order; so are GPUs.
pub(super) fn resources(xml: &str) -> Result<Resources, XmlError> {
    let mut open: Vec<Object> = Vec::new();
    let (mut cores, mut pci_devices) = (0, 0);
    let mut gpus: Vec<(Option<usize>, String)> = Vec::new();
    let mut is_topology = false;
    for tag in tags(xml) {
        let tag = tag?;
        match tag.name {
            "topology" => is_topology = true,
            "object" if tag.opens => {
                let kind = tag.attribute("type").unwrap_or_default();
                let mut pci = open.last().and_then(|parent| parent.pci);
                match &*kind {
                    "Core" => cores += 1,
                    "PCIDev" => {
                        pci = Some(pci_devices);
                        pci_devices += 1;
                    }
                    _ => {}
                }
                let object = Object { is_os_device: kind == "OSDev", pci, backend: None };
                if !tag.closes {
                    open.push(object);
                }
            }
            "object" => {
                let object = open.pop().ok_or(XmlError::Malformed("an object ends twice"))?;
                gpus.extend(gpu(object, &gpus));
            }
            "info" if tag.attribute("name").as_deref() == Some("Backend") => {
                if let Some(object) = open.last_mut() {
                    object.backend = tag.attribute("value").map(Cow::into_owned);
                }
            }
            _ => {}
        }
    }
    if !is_topology || !open.is_empty() {
        return Err(XmlError::Malformed("it is not complete"));
    }
    if cores == 0 {
        return Err(XmlError::NoCores);
    }
    let gpus = u32::try_from(gpus.len()).unwrap_or(u32::MAX);
    Ok(Resources { cores: Idset::first_n(cores), gpus: Idset::first_n(gpus) })
}

/// One GPU is seen by several backends, say CUDA and OpenCL, as devices of one PCI device. Several
/// devices of one backend there are parts of a partitioned GPU, and count each.
fn gpu(object: Object, seen: &[(Option<usize>, String)]) -> Option<(Option<usize>, String)> {
    let backend = object.backend.filter(|name| GPU_BACKENDS.contains(&name.as_str()))?;
    let is_same = |(pci, other): &(Option<usize>, String)| {
        object.pci.is_some() && *pci == object.pci && *other != backend
    };
    (object.is_os_device && !seen.iter().any(is_same)).then_some((object.pci, backend))
}

pub(super) fn host_name(xml: &str) -> Option<String> {
    let mut infos = tags(xml).map_while(Result::ok).filter(|tag| tag.name == "info");
    let info = infos.find(|tag| tag.attribute("name").as_deref() == Some("HostName"))?;
    info.attribute("value").map(Cow::into_owned)
}

fn tags(xml: &str) -> impl Iterator<Item = Result<Tag<'_>, XmlError>> {
    let mut rest = xml;
    std::iter::from_fn(move || {
        loop {
            let (_, after) = rest.split_once('<')?;
            if let Some(comment) = after.strip_prefix("!--") {
                rest = comment.split_once("-->").map_or("", |(_, after)| after);
                continue;
            }
            // hwloc writes `>` in values as an entity.
            let Some((tag, after)) = after.split_once('>') else {
                rest = "";
                return Some(Err(XmlError::Malformed("a tag does not end")));
            };
            rest = after;
            if !tag.starts_with(['?', '!']) {
                return Some(Ok(Tag::parse(tag)));
            }
        }
    })
}

// === impl Tag ===

impl<'a> Tag<'a> {
    fn parse(text: &'a str) -> Tag<'a> {
        let (text, ends) = match text.strip_prefix('/') {
            Some(text) => (text, true),
            None => (text, false),
        };
        let (text, is_empty) = match text.strip_suffix('/') {
            Some(text) => (text, true),
            None => (text, false),
        };
        let (name, attributes) =
            text.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((text, ""));
        Tag { name, attributes, opens: !ends, closes: ends || is_empty }
    }

    fn attribute(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut rest = self.attributes;
        loop {
            let (key, after) = rest.split_once("=\"")?;
            let (value, after) = after.split_once('"')?;
            if key.trim() == name {
                return Some(unescape(value));
            }
            rest = after;
        }
    }
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let entities =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    let unescaped = entities
        .iter()
        .fold(text.to_owned(), |text, (entity, character)| text.replace(entity, character));
    Cow::Owned(unescaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(inside: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n\
             <topology version=\"2.0\"><object type=\"Machine\" os_index=\"0\">\
             <info name=\"HostName\" value=\"a&amp;b\"/>{inside}</object></topology>"
        )
    }

    fn device(backend: &str) -> String {
        format!(
            "<object type=\"OSDev\" name=\"x\"><info name=\"Backend\" value=\"{backend}\"/></object>"
        )
    }

    fn pci(devices: &[&str]) -> String {
        let devices: String = devices.iter().map(|backend| device(backend)).collect();
        format!("<object type=\"PCIDev\">{devices}</object>")
    }

    const CORES: &str =
        "<object type=\"Core\"><object type=\"PU\"/></object><object type=\"Core\"/>";

    fn counts(inside: &str) -> (u64, u64) {
        let resources = resources(&machine(&format!("{CORES}{inside}"))).unwrap();
        (resources.cores.count(), resources.gpus.count())
    }

    #[test]
    fn cores_are_counted_and_the_host_is_named() {
        assert_eq!(counts(""), (2, 0));
        assert_eq!(host_name(&machine("")).as_deref(), Some("a&b"));
    }

    #[test]
    fn one_gpu_of_several_backends_counts_once_and_parts_count_each() {
        assert_eq!(counts(&pci(&["CUDA", "OpenCL", "NVML"])), (2, 1));
        assert_eq!(counts(&pci(&["RSMI", "RSMI", "OpenCL"])), (2, 2));
        assert_eq!(counts(&format!("{}{}", pci(&["CUDA"]), pci(&["CUDA"]))), (2, 2));
        assert_eq!(counts(&device("OpenCL")), (2, 1));
        assert_eq!(counts(&pci(&["GL"])), (2, 0));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "<topology", "{}", "<topology><object type=\"Core\"></topology>"] {
            assert!(matches!(resources(text), Err(XmlError::Malformed(_))), "{text}");
        }
        assert!(matches!(resources(&machine("")), Err(XmlError::NoCores)));
    }
}
