//! CNI on both sides: client and plugins.
