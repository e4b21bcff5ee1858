//! A GraphQL client over WebSocket that can send anything.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

pub struct Socket(WebSocketStream<TcpStream>);

/// A message from the server.
#[derive(Debug, PartialEq)]
pub enum Received {
    Text(String),
    /// The server closed the connection with this code.
    Closed(u16),
    /// The connection ended without a close frame.
    Gone,
}

impl Socket {
    pub async fn open(url: &str) -> Self {
        let address = url.strip_prefix("http://").unwrap();
        let mut request = format!("ws://{address}/graphql")
            .into_client_request()
            .unwrap();
        request.headers_mut().insert(
            "sec-websocket-protocol",
            "graphql-transport-ws".parse().unwrap(),
        );
        let stream = TcpStream::connect(address).await.unwrap();
        Self(
            tokio_tungstenite::client_async(request, stream)
                .await
                .unwrap()
                .0,
        )
    }

    /// Sends a text frame, which should be UTF-8. The server may have closed the connection.
    pub async fn send_text(&mut self, text: &[u8]) {
        let frame = Frame::message(text.to_vec(), OpCode::Data(Data::Text), true);
        let _ = self.0.send(Message::Frame(frame)).await;
    }

    /// Returns the next message, within ten seconds.
    pub async fn receive(&mut self) -> Received {
        loop {
            let message = tokio::time::timeout(Duration::from_secs(10), self.0.next())
                .await
                .expect("it says nothing");
            match message {
                Some(Ok(Message::Text(text))) => return Received::Text(text.to_string()),
                Some(Ok(Message::Close(frame))) => {
                    return Received::Closed(frame.map_or(1005, |frame| frame.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Received::Gone,
            }
        }
    }

    /// Opens a connection and waits for `connection_ack`.
    pub async fn open_initialised(url: &str) -> Self {
        let mut socket = Self::open(url).await;
        socket.send_text(br#"{"type":"connection_init"}"#).await;
        assert_eq!(
            socket.receive().await,
            Received::Text(r#"{"type":"connection_ack"}"#.to_owned())
        );
        socket
    }
}

/// Returns the status of a WebSocket request with these headers.
pub async fn upgrade_status(url: &str, headers: &[(&str, String)]) -> u16 {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    let mut head = "GET /graphql HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                    sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-protocol: graphql-transport-ws\r\n"
        .to_owned();
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream
        .write_all(format!("{head}\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
}
