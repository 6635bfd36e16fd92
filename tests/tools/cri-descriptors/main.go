// Prints the descriptor of upstream's CRI v1, as the Go module k8s.io/cri-api has it: an encoded
// google.protobuf.FileDescriptorProto on standard output. tests/host/proto_compatibility.rs compares it with ours.
package main

import (
	"os"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func main() {
	bytes, err := proto.Marshal(protodesc.ToFileDescriptorProto(runtime.File_staging_src_k8s_io_cri_api_pkg_apis_runtime_v1_api_proto))
	if err == nil {
		_, err = os.Stdout.Write(bytes)
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
