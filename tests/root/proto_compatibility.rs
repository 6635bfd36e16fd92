//! Our `api.proto` against the descriptors of the upstream Go module `k8s.io/cri-api`: the same on the wire, field by
//! field.
//!
//! Both are flattened into lines such as `field runtime.v1.Mount.container_path: 1 string`, and the two sets of lines are
//! compared: what differs is told by name.

use std::collections::BTreeSet;
use std::process::Command;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};

type Lines = BTreeSet<String>;

#[test]
fn every_message_field_enum_and_rpc_is_upstream_s() {
    let ours = FileDescriptorSet::decode(proto::DESCRIPTORS).expect("our descriptors");
    let ours = ours.file.iter().find(|file| file.package() == "runtime.v1").expect("the CRI's file");
    let (ours, upstream) = (lines(ours), lines(&upstream()));
    let only = |a: &Lines, b: &Lines| a.difference(b).cloned().collect::<Vec<_>>().join("\n  ");
    let (extra, missing) = (only(&ours, &upstream), only(&upstream, &ours));
    assert!(ours == upstream, "only ours:\n  {extra}\nonly upstream's:\n  {missing}");
    assert_eq!(upstream.iter().filter(|line| line.starts_with("rpc ")).count(), 41);
}

/// What a small Go program prints that is built with the pinned module.
fn upstream() -> FileDescriptorProto {
    let output = Command::new(tests::tool("cri-descriptors")).output().expect("run cri-descriptors");
    assert!(output.status.success(), "cri-descriptors: {}", String::from_utf8_lossy(&output.stderr));
    FileDescriptorProto::decode(output.stdout.as_slice()).expect("upstream's descriptors")
}

fn lines(file: &FileDescriptorProto) -> Lines {
    let mut lines = Lines::new();
    let package = file.package();
    lines.insert(format!("package {package} {}", file.syntax()));
    file.message_type.iter().for_each(|message| self::message(&mut lines, package, message));
    file.enum_type.iter().for_each(|kind| enumeration(&mut lines, package, kind));
    file.service.iter().for_each(|service| self::service(&mut lines, package, service));
    lines
}

fn message(lines: &mut Lines, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    let is_map = message.options.as_ref().is_some_and(|options| options.map_entry());
    lines.insert(format!("message {name}{}", if is_map { " (map entry)" } else { "" }));
    message.field.iter().for_each(|field| self::field(lines, &name, field));
    message.nested_type.iter().for_each(|nested| self::message(lines, &name, nested));
    message.enum_type.iter().for_each(|kind| enumeration(lines, &name, kind));
    message.oneof_decl.iter().for_each(|oneof| {
        lines.insert(format!("oneof {name}.{}", oneof.name()));
    });
}

fn field(lines: &mut Lines, message: &str, field: &FieldDescriptorProto) {
    let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
    let kind = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        scalar => scalar.as_str_name().to_owned(),
    };
    let optional = if field.proto3_optional() { "optional " } else { "" };
    lines.insert(format!("field {message}.{}: {} {optional}{repeated}{kind}", field.name(), field.number()));
}

fn enumeration(lines: &mut Lines, scope: &str, kind: &EnumDescriptorProto) {
    for value in &kind.value {
        lines.insert(format!("value {scope}.{}.{}: {}", kind.name(), value.name(), value.number()));
    }
}

fn service(lines: &mut Lines, package: &str, service: &ServiceDescriptorProto) {
    for method in &service.method {
        let stream = |streaming: bool| if streaming { "stream " } else { "" };
        lines.insert(format!(
            "rpc {package}.{}.{}({}{}) returns ({}{})",
            service.name(),
            method.name(),
            stream(method.client_streaming()),
            method.input_type(),
            stream(method.server_streaming()),
            method.output_type(),
        ));
    }
}
