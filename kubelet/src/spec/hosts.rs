//! The content of a pod's /etc/hosts.
