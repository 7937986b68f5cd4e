//! How the tests call: applications, admin pages, and gRPC.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Response, Status, Streaming};
use weft_tests::echo::Note;
use weft_tests::echo::echo_client::EchoClient;
use weft_tests::echo::echo_server::{Echo, EchoServer};
use weft_tests::mesh::{Answer, Http, in_time};

/// A GET that says what it accepts.
pub(crate) async fn get(address: SocketAddr, path: &str, accept: &str) -> Answer {
    let request = Request::get(path).header("accept", accept);
    Http::open(address).await.send(request, Bytes::new()).await.unwrap()
}

/// A unary call; true when it went well.
pub(crate) async fn say(door: SocketAddr, text: &str) -> bool {
    let channel = Endpoint::from_shared(format!("http://{door}")).unwrap().connect().await.unwrap();
    let note = Note { text: text.to_owned() };
    in_time("an answer", EchoClient::new(channel).say(note)).await.is_ok()
}

/// A gRPC application that answers "fail" with UNAVAILABLE.
pub(crate) async fn grpc() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(EchoServer::new(Says));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

struct Says;

type Notes = tokio_stream::Pending<Result<Note, Status>>;

#[tonic::async_trait]
impl Echo for Says {
    async fn say(&self, request: tonic::Request<Note>) -> Result<Response<Note>, Status> {
        match request.into_inner() {
            note if note.text == "fail" => Err(Status::unavailable("as you wish")),
            note => Ok(Response::new(note)),
        }
    }

    async fn gather(&self, _: tonic::Request<Streaming<Note>>) -> Result<Response<Note>, Status> {
        Err(Status::unimplemented("only says"))
    }

    type CountStream = Notes;
    async fn count(&self, _: tonic::Request<Note>) -> Result<Response<Notes>, Status> {
        Err(Status::unimplemented("only says"))
    }

    type ChatStream = Notes;
    async fn chat(&self, _: tonic::Request<Streaming<Note>>) -> Result<Response<Notes>, Status> {
        Err(Status::unimplemented("only says"))
    }
}
