//! Which images a pod may use without pulling.

use super::*;
use crate::images::keyring::Keyring;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

const NAME: &str = "reg.io/app";
const ID: &str = "sha256:1";

fn credential(uid: &str, password: &str) -> Credential {
    let config = json!({ "auths": { "reg.io": { "username": "u", "password": password } } });
    let mut secret = Secret {
        type_: Some("kubernetes.io/dockerconfigjson".to_owned()),
        data: Some(BTreeMap::from([(".dockerconfigjson".to_owned(), ByteString(config.to_string().into_bytes()))])),
        ..Secret::default()
    };
    secret.metadata.uid = Some(uid.to_owned());
    let mut keyring = Keyring::default();
    keyring.add(&secret).expect("a secret");
    keyring.lookup("reg.io/app").remove(0)
}

fn records() -> (tempfile::TempDir, Records) {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let records = Records::below(temp.path());
    (temp, records)
}

fn pulled(records: &Records, with: Option<&Credential>) {
    records.pulled(NAME, ID, with, "2026-01-02T03:04:05Z".parse().expect("a time")).expect("a record");
}

#[track_caller]
fn check(records: &Records, with: &[Credential], expected: bool) {
    let may = match records.verdict("reg.io/app:1", NAME, ID) {
        Verdict::Everybody => true,
        Verdict::Pullers => false,
        Verdict::Holders(holders) => holders.include(with),
    };
    assert_eq!(may, expected);
}

#[test]
fn an_image_that_was_there_before_is_for_everybody() {
    let (_temp, records) = records();
    check(&records, &[], true);
}

#[test]
fn an_image_pulled_without_credentials_is_for_everybody() {
    let (_temp, records) = records();
    pulled(&records, Some(&credential("s1", "p")));
    pulled(&records, None);
    check(&records, &[], true);
}

#[test]
fn a_private_image_is_for_those_who_have_its_secret() {
    let (_temp, records) = records();
    pulled(&records, Some(&credential("s1", "p")));
    check(&records, &[], false);
    check(&records, &[credential("s2", "other")], false);
    check(&records, &[credential("s2", "p")], true);
    check(&records, &[credential("s1", "renewed")], true);
}

#[test]
fn a_private_image_under_another_name_has_to_be_pulled() {
    let (_temp, records) = records();
    pulled(&records, None);
    assert_eq!(records.verdict("other.io/app:1", "other.io/app", ID), Verdict::Pullers);
}

#[test]
fn a_pull_that_a_crash_cut_short_leaves_the_image_to_those_who_can_pull_it() {
    let (_temp, records) = records();
    records.begin("reg.io/app:1").expect("a note");
    check(&records, &[], false);
    records.end("reg.io/app:1");
    check(&records, &[], true);
}

#[test]
fn a_record_that_is_broken_is_no_free_pass() {
    let (_temp, records) = records();
    pulled(&records, None);
    sys::fs::atomic_write(records.file("pulled", ID), b"{", Durability::Rename, 0o600).expect("a broken record");
    check(&records, &[], false);
}

#[test]
fn a_record_is_upstream_s_and_holds_no_secret() {
    let (_temp, records) = records();
    pulled(&records, Some(&credential("s1", "hunter2")));
    let text = String::from_utf8(sys::fs::read_bounded(records.file("pulled", ID), MAX_RECORD).expect("a record"));
    let text = text.expect("text");
    assert!(!text.contains("hunter2"), "{text}");
    let hash = credential("s1", "hunter2").fingerprint();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON"),
        json!({
            "kind": "ImagePulledRecord", "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "lastUpdatedTime": "2026-01-02T03:04:05Z", "imageRef": ID,
            "credentialMapping": { NAME: { "kubernetesSecrets": [
                { "uid": "s1", "namespace": "", "name": "", "credentialHash": hash },
            ] } },
        })
    );
}
