//! CRI v1 protobuf and its generated code.
