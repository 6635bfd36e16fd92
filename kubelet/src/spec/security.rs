//! The security context: users, groups, seccomp, masks.
