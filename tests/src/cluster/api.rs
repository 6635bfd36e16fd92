//! The API server as a test polls it: plain HTTP through `kubectl proxy`, because starting `kubectl` for each look at a
//! condition would cost more than what is under test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
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

    /// Every change to the objects of the list at `path`, from now on: what is there already comes as added.
    ///
    /// # Errors
    /// The server's message, or why there is no answer.
    pub fn watch(&self, path: &str) -> Result<Watch, String> {
        let failed = |error: std::io::Error| format!("watch {path}: {error}");
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(failed)?;
        let request = format!("GET {path}?watch=1 HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut watch = Watch { stream: BufReader::new(stream) };
        // The head ends with an empty line.
        while !watch.line(DEADLINE)?.is_empty() {}
        Ok(watch)
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

/// Changes to a list of objects, as they happen.
#[derive(Debug)]
pub struct Watch {
    stream: BufReader<TcpStream>,
}

impl Watch {
    /// Waits for the next change and returns its `type` and `object`.
    ///
    /// # Errors
    /// That none came in `deadline`, times `SLOW`, or that the server has ended the watch.
    pub fn next(&mut self, deadline: Duration) -> Result<Value, String> {
        json("watch", &self.line(deadline)?)
    }

    fn line(&mut self, deadline: Duration) -> Result<String, String> {
        let failed = |error: std::io::Error| format!("watch: {error}");
        self.stream.get_ref().set_read_timeout(Some(deadline * crate::slow())).map_err(failed)?;
        let mut line = String::new();
        match self.stream.read_line(&mut line).map_err(failed)? {
            0 => Err("watch: the server ended it".to_owned()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

fn json(path: &str, text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("{path} is not JSON: {error}"))
}
