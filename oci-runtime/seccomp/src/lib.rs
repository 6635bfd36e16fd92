//! seccomp profiles to BPF programs, and RuntimeDefault.
