//! Certificates for tests.

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A CA.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Authority {
    pub(super) fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// A client's certificate.
    pub(super) fn client(&self, name: &str, group: Option<&str>) -> Identity {
        let group = group.map(|group| (DnType::OrganizationName, group));
        let names: Vec<_> = [(DnType::CommonName, name)].into_iter().chain(group).collect();
        self.issue(&names, (2020, 2090), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// One whose subject has a second common name.
    pub(super) fn client_of_two_names(&self, first: &str, second: &str) -> Identity {
        let names = [(DnType::CommonName, first), (DnType::CustomDnType(vec![2, 5, 4, 3]), second)];
        self.issue(&names, (2020, 2090), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// One that ended long ago.
    pub(super) fn expired(&self, name: &str) -> Identity {
        self.issue(&[(DnType::CommonName, name)], (2020, 2021), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A server's certificate, which is no client's.
    pub(super) fn server(&self, name: &str) -> Identity {
        self.issue(&[(DnType::CommonName, name)], (2020, 2090), ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn issue(&self, names: &[(DnType, &str)], years: (i32, i32), usage: ExtendedKeyUsagePurpose) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        params.extended_key_usages = vec![usage];
        let made = params.signed_by(&key, &self.issuer).unwrap();
        (vec![made.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}
