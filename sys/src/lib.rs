//! Linux primitives that std lacks; the only home of `unsafe`.
