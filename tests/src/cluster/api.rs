//! The API server as a test polls it: plain HTTP through `kubectl proxy`, because starting `kubectl` for each look at a
//! condition would cost more than what is under test.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// No answer of a healthy API server takes longer; one that does is an error, and the caller's wait goes on.
const DEADLINE: Duration = Duration::from_secs(10);

/// A client with the rights of an administrator. Copies cost nothing.
#[derive(Debug, Clone, Copy)]
pub struct Api {
    pub(super) port: u16,
}

impl Api {
    /// The object or list at `path`: `/api/v1/nodes/a`.
    ///
    /// # Errors
    /// The server's message, or why there is no answer.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        json(path, &self.call("GET", path, "", "")?)
    }

    /// What `path` answers, as text: `/readyz`, a node's metrics through `/proxy/`.
    ///
    /// # Errors
    /// The server's message, or why there is no answer.
    pub fn text(&self, path: &str) -> Result<String, String> {
        self.call("GET", path, "", "")
    }

    /// Creates an object.
    ///
    /// # Errors
    /// The server's message, or why there is no answer.
    pub fn post(&self, path: &str, object: &Value) -> Result<Value, String> {
        json(path, &self.call("POST", path, "application/json", &object.to_string())?)
    }

    /// Changes an object by a JSON merge patch.
    ///
    /// # Errors
    /// The server's message, or why there is no answer.
    pub fn merge(&self, path: &str, patch: &Value) -> Result<Value, String> {
        json(path, &self.call("PATCH", path, "application/merge-patch+json", &patch.to_string())?)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// The server's message, or why there is no answer.
    pub fn delete(&self, path: &str) -> Result<Value, String> {
        json(path, &self.call("DELETE", path, "", "")?)
    }

    /// HTTP/1.0, so that the answer ends with the connection and comes in one piece.
    fn call(&self, method: &str, path: &str, content_type: &str, body: &str) -> Result<String, String> {
        let failed = |error: std::io::Error| format!("{method} {path}: {error}");
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(failed)?;
        let deadline = DEADLINE * crate::slow();
        stream.set_read_timeout(Some(deadline)).map_err(failed)?;
        stream.set_write_timeout(Some(deadline)).map_err(failed)?;
        let content = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n", body.len())
        };
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json, */*\r\n{content}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(failed)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{method} {path}: half an answer"))?;
        match head.split(' ').nth(1) {
            Some(status) if status.starts_with('2') => Ok(body.to_owned()),
            status => Err(format!("{method} {path}: {} {body}", status.unwrap_or("?"))),
        }
    }
}

fn json(path: &str, text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("{path} is not JSON: {error}"))
}
