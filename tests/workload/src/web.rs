//! `nginx` and `httpd`: web servers with one page, in the clothes of the two that upstream suites expect.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::thread;

const PAGE: &str = "<!DOCTYPE html><html><head><title>Welcome</title></head><body><h1>It works!</h1></body></html>\n";

/// `nginx [PORT]`: becomes "nginx: master process nginx", the title by which the upstream suite knows it.
pub(crate) fn nginx(arguments: &[String]) -> ExitCode {
    let own = fs::read_link("/proc/self/exe").unwrap_or_else(|_| "/usr/sbin/nginx".into());
    let error = Command::new(own).arg0("nginx: master process nginx").args(arguments).exec();
    eprintln!("nginx: exec itself: {error}");
    ExitCode::FAILURE
}

/// The server behind [`nginx`]; leaves its process id in `/var/run/nginx.pid`.
pub(crate) fn serve_pages(arguments: &[String]) -> ExitCode {
    if let Ok(mut file) = fs::File::create("/var/run/nginx.pid") {
        let _nobody_reads_it_yet = writeln!(file, "{}", std::process::id());
    }
    serve(port(arguments))
}

/// `httpd [PORT]`: says so on standard error, then serves.
pub(crate) fn httpd(arguments: &[String]) -> ExitCode {
    eprintln!("[core:notice] AH00094: Command line: 'httpd -D FOREGROUND'");
    serve(port(arguments))
}

fn port(arguments: &[String]) -> u16 {
    arguments.first().and_then(|port| port.parse().ok()).unwrap_or(80)
}

fn serve(port: u16) -> ExitCode {
    // `::` takes IPv4 too where IPv6 exists at all.
    let listener = TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)));
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("listen on port {port}: {error}");
            return ExitCode::FAILURE;
        }
    };
    for connection in listener.incoming().flatten() {
        thread::spawn(move || answer(connection));
    }
    ExitCode::SUCCESS
}

/// Reads one request's head and answers it; a client that goes away has its reasons.
fn answer(mut connection: TcpStream) {
    let Ok(reading) = connection.try_clone() else { return };
    let request_line = BufReader::new(reading).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).next();
    let (status, body) = match request_line.as_deref() {
        Some(line) if line.starts_with("GET ") => ("200 OK", PAGE),
        _ => ("400 Bad Request", ""),
    };
    let _client_gone = write!(
        connection,
        "HTTP/1.1 {status}\r\nServer: orlop-test\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}
