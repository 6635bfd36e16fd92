//! The cluster's certificate authority and what it signs: one file per certificate and key, PEM.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::write;

/// The authority that the API server, its clients and the kubelets trust.
pub(super) struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as paths of PEM files.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes an authority whose certificate is `dir/ca.crt`.
    pub(super) fn new(dir: &Path) -> Authority {
        let mut params = named("orlop-test", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = new_key();
        let certificate = params.self_signed(&key).expect("a certificate of the authority");
        write(&dir.join("ca.crt"), certificate.pem());
        Authority { dir: dir.to_owned(), issuer: Issuer::new(params, key) }
    }

    /// The authority's own certificate.
    pub(super) fn certificate(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// A client's certificate: Kubernetes takes `user` from the common name and `group` from the organisation.
    pub(super) fn client(&self, file: &str, user: &str, group: Option<&str>) -> Identity {
        let mut params = named(user, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(file, params)
    }

    /// The API server's own certificate: on loopback, and under the names by which pods know it.
    pub(super) fn server(&self, file: &str, service_ip: Ipv4Addr) -> Identity {
        let mut params = named("kube-apiserver", None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names =
            [Ipv4Addr::LOCALHOST, service_ip].map(|address| SanType::IpAddress(IpAddr::V4(address))).into();
        for name in ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"] {
            params.subject_alt_names.push(SanType::DnsName(name.try_into().expect("a DNS name")));
        }
        self.sign(file, params)
    }

    /// A key pair for service account tokens: the private key's file and the public one's.
    pub(super) fn token_keys(&self) -> (PathBuf, PathBuf) {
        let key = new_key();
        let (private, public) = (self.dir.join("sa.key"), self.dir.join("sa.pub"));
        write(&private, key.serialize_pem());
        write(&public, key.public_key_pem());
        (private, public)
    }

    fn sign(&self, file: &str, mut params: CertificateParams) -> Identity {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        let key = new_key();
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let identity =
            Identity { certificate: self.dir.join(format!("{file}.crt")), key: self.dir.join(format!("{file}.key")) };
        write(&identity.certificate, certificate.pem());
        write(&identity.key, key.serialize_pem());
        identity
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn named(common_name: &str, organization: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params
}
