//! CRI v1, the protocol between a kubelet and a container runtime: messages, client and server traits.
//!
//! Everything here is generated from `api.proto`, which is the whole of cri-api v0.36: 41 RPCs. The one thing written by
//! hand is how credentials print. The messages that the daemon keeps in its records implement serde.

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    clippy::doc_markdown,
    reason = "generated; the schema says what there is to say"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/runtime.v1.rs"));
}

pub use generated::*;

/// Orlop's own image service: a pull that tells how it goes. Generated from `image.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    clippy::doc_markdown,
    reason = "generated; the schema says what there is to say"
)]
pub mod image {
    include!(concat!(env!("OUT_DIR"), "/orlop.image.v1.rs"));

    impl std::fmt::Debug for PullRequest {
        /// Names the image and the user; the password is never printed.
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("PullRequest")
                .field("reference", &self.reference)
                .field("username", &self.username)
                .finish_non_exhaustive()
        }
    }
}

/// The compiled schema, an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

impl std::fmt::Debug for AuthConfig {
    /// Names the server and the user; a secret is never printed, so that it can't reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig")
            .field("server_address", &self.server_address)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_do_not_print_their_secrets() {
        let auth = AuthConfig {
            username: "ann".into(),
            password: "s3cret".into(),
            auth: "YW5uOnMzY3JldA==".into(),
            identity_token: "id-token".into(),
            registry_token: "reg-token".into(),
            server_address: "registry.example".into(),
        };
        let printed = format!("{auth:?}");
        assert!(printed.contains("ann") && printed.contains("registry.example"), "{printed}");
        for secret in ["s3cret", "YW5u", "id-token", "reg-token"] {
            assert!(!printed.contains(secret), "{printed}");
        }
    }

    #[test]
    fn a_persisted_config_reads_back_as_it_was_and_lacking_fields_get_their_defaults() {
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "a".into(), attempt: 3 }),
            envs: vec![KeyValue { key: "K".into(), value: vec![0xff, 0x00] }],
            ..Default::default()
        };
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ContainerConfig>(&json).unwrap(), config);
        assert_eq!(serde_json::from_str::<ContainerConfig>("{}").unwrap(), ContainerConfig::default());
    }
}
