//! Business cards: what brokers tell each other through PMI before they can connect.

use flux_cert::PublicKey;
use serde::{Deserialize, Serialize};

/// `{"host":"h","uri":["ipc://..."],"pubkey":"Z85"}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bizcard {
    pub(super) host: String,
    /// Where its children connect; empty for a leaf.
    #[serde(default)]
    pub(super) uri: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pubkey: Option<String>,
}

/// A card that another broker should not have written.
#[derive(Debug, thiserror::Error)]
pub enum BizcardError {
    #[error("business card of rank {rank}: {source}")]
    Json { rank: u32, source: serde_json::Error },
    #[error("business card of rank {rank} has no valid public key")]
    Key { rank: u32 },
    #[error("business card of rank {rank} has no endpoint to connect to")]
    NoEndpoint { rank: u32 },
}

// === impl Bizcard ===

impl Bizcard {
    pub(super) fn decode(rank: u32, text: &str) -> Result<Bizcard, BizcardError> {
        serde_json::from_str(text).map_err(|source| BizcardError::Json { rank, source })
    }

    /// One line without blanks, so that launchers that split lines at blanks keep it whole.
    pub(super) fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn key(&self, rank: u32) -> Result<PublicKey, BizcardError> {
        let key = self.pubkey.as_deref().and_then(|text| text.parse().ok());
        key.ok_or(BizcardError::Key { rank })
    }

    /// The first endpoint with this scheme, else the first of all.
    pub(super) fn endpoint(&self, rank: u32, scheme: Option<&str>) -> Result<&str, BizcardError> {
        let preferred =
            scheme.and_then(|scheme| self.uri.iter().find(|uri| uri.starts_with(scheme)));
        let endpoint = preferred.or_else(|| self.uri.first());
        endpoint.map(String::as_str).ok_or(BizcardError::NoEndpoint { rank })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captured_card_is_read_and_written_alike() {
        let text = r#"{"host":"vm","uri":["ipc:///tmp/tbon-0"],"pubkey":"c(6Qz41niQvO5alN1PeKp>BaBtK+oTjLAU[HilW8"}"#;
        let card = Bizcard::decode(0, text).unwrap();
        assert_eq!(card.encode(), text);
        assert_eq!(card.key(0).unwrap().to_string(), card.pubkey.unwrap());
        let leaf = Bizcard::decode(1, r#"{"host":"vm","uri":[]}"#).unwrap();
        assert!(matches!(leaf.endpoint(1, None), Err(BizcardError::NoEndpoint { rank: 1 })));
        assert!(matches!(leaf.key(1), Err(BizcardError::Key { rank: 1 })));
        assert!(Bizcard::decode(1, "[]").is_err());
    }

    #[test]
    fn local_endpoint_is_preferred_where_it_can_be_reached() {
        let card = Bizcard {
            host: "h".to_owned(),
            uri: vec!["tcp://10.0.0.1:1".to_owned(), "ipc:///r/tbon-0".to_owned()],
            pubkey: None,
        };
        assert_eq!(card.endpoint(0, Some("ipc://")).unwrap(), "ipc:///r/tbon-0");
        assert_eq!(card.endpoint(0, None).unwrap(), "tcp://10.0.0.1:1");
    }
}
