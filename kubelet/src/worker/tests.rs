//! Workers against a runtime, a host and an API server in memory, in virtual time.
