//! gRPC in all four call shapes through two sidecars, by tonic at both ends.

use std::pin::Pin;

use tokio::net::TcpListener;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

use weft_tests::echo::Note;
use weft_tests::echo::echo_client::EchoClient;
use weft_tests::echo::echo_server::{Echo, EchoServer};
use weft_tests::mesh;
use weft_tests::mesh::{Mesh, Pod, in_time};

struct Echoes;

type Notes = Pin<Box<dyn Stream<Item = Result<Note, Status>> + Send>>;

fn note(text: impl Into<String>) -> Note {
    Note { text: text.into() }
}

#[tonic::async_trait]
impl Echo for Echoes {
    async fn say(&self, request: Request<Note>) -> Result<Response<Note>, Status> {
        let text = request.get_ref().text.clone();
        if text == "fail" {
            let mut status =
                Status::with_details(Code::FailedPrecondition, "not today: é", vec![1, 2, 3].into());
            status.metadata_mut().insert("x-why", "because".parse().unwrap());
            return Err(status);
        }
        let mut response = Response::new(note(text));
        let seen = request.metadata().get("x-from").cloned();
        seen.map(|seen| response.metadata_mut().insert("x-seen", seen));
        Ok(response)
    }

    async fn gather(&self, request: Request<Streaming<Note>>) -> Result<Response<Note>, Status> {
        let mut notes = request.into_inner();
        let mut all = String::new();
        while let Some(note) = notes.next().await {
            all.push_str(&note?.text);
        }
        Ok(Response::new(note(all)))
    }

    type CountStream = Notes;
    async fn count(&self, request: Request<Note>) -> Result<Response<Notes>, Status> {
        let count: u32 = request.get_ref().text.parse().unwrap();
        let notes = (0..count).map(|n| Ok(note(n.to_string())));
        let end = std::iter::once(Err(Status::out_of_range("no more")));
        Ok(Response::new(Box::pin(tokio_stream::iter(notes.chain(end)))))
    }

    type ChatStream = Notes;
    async fn chat(&self, request: Request<Streaming<Note>>) -> Result<Response<Notes>, Status> {
        let notes = request.into_inner();
        Ok(Response::new(Box::pin(notes.map(|said| said.map(|said| note(format!("re: {}", said.text)))))))
    }
}

async fn place() -> (Mesh, EchoClient<Channel>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(EchoServer::new(Echoes));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let mesh = mesh!()
        .service("echo", 50051, Some("grpc"))
        .pod(Pod::named("echo-0").serves(50051, address))
        .pod(Pod::named("client-0").calls("echo:50051"))
        .start()
        .await;
    let door = format!("http://{}", mesh.door("client-0", "echo:50051"));
    let channel = Endpoint::from_shared(door).unwrap().connect().await.unwrap();
    (mesh, EchoClient::new(channel))
}

#[tokio::test]
async fn a_unary_grpc_call_brings_its_message_and_metadata_both_ways() {
    let (mesh, mut client) = place().await;
    let mut request = Request::new(note("hello"));
    request.metadata_mut().insert("x-from", "client".parse().unwrap());
    let answer = in_time("an answer", client.say(request)).await.unwrap();
    assert_eq!(answer.metadata().get("x-seen").unwrap(), "client");
    assert_eq!(answer.into_inner().text, "hello");
    let line = mesh.sidecar("echo-0").logged("the call", |line| line["protocol"] == "grpc").await;
    assert_eq!(line["security"], "mutual_tls", "{line}");
    assert_eq!(line["http.path"], "/weft.test.Echo/Say", "{line}");
}

#[tokio::test]
async fn a_failed_grpc_call_brings_code_message_details_and_trailers() {
    let (mesh, mut client) = place().await;
    let status = in_time("an answer", client.say(note("fail"))).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "not today: é"));
    assert_eq!(status.details(), [1, 2, 3]);
    assert_eq!(status.metadata().get("x-why").unwrap(), "because");
    let line = mesh.sidecar("client-0").logged("the call", |line| line["protocol"] == "grpc").await;
    assert_eq!(line["grpc.status"], 9, "{line}");
}

#[tokio::test]
async fn a_client_stream_is_gathered_into_one_answer() {
    let (_mesh, mut client) = place().await;
    let notes = tokio_stream::iter(["a", "b", "c"].map(note));
    let answer = in_time("an answer", client.gather(notes)).await.unwrap();
    assert_eq!(answer.into_inner().text, "abc");
}

#[tokio::test]
async fn a_server_stream_ends_with_the_status_of_its_trailers() {
    let (_mesh, mut client) = place().await;
    let mut notes = in_time("an answer", client.count(note("500"))).await.unwrap().into_inner();
    for n in 0..500 {
        let note = in_time("a note", notes.message()).await.unwrap().unwrap();
        assert_eq!(note.text, n.to_string());
    }
    let end = in_time("the end", notes.message()).await.unwrap_err();
    assert_eq!((end.code(), end.message()), (Code::OutOfRange, "no more"));
}

#[tokio::test]
async fn both_sides_of_a_stream_speak_in_turn() {
    let (_mesh, mut client) = place().await;
    let (say, said) = tokio::sync::mpsc::channel(1);
    // The first note is under way before the answer's head: a server may wait for it.
    say.send(note("0")).await.unwrap();
    let mut notes = in_time("an answer", client.chat(ReceiverStream::new(said))).await.unwrap().into_inner();
    for n in 0..20 {
        let answer = in_time("a note", notes.message()).await.unwrap().unwrap();
        assert_eq!(answer.text, format!("re: {n}"));
        say.send(note((n + 1).to_string())).await.unwrap();
    }
    drop(say);
    assert_eq!(in_time("a note", notes.message()).await.unwrap().unwrap().text, "re: 20");
    assert!(in_time("the end", notes.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_hundred_calls_at_once_share_the_way() {
    let (_mesh, client) = place().await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..100 {
        let mut client = client.clone();
        calls.spawn(async move { client.say(note(n.to_string())).await.unwrap().into_inner().text });
    }
    let mut answers: Vec<u32> = Vec::new();
    while let Some(answer) = in_time("an answer", calls.join_next()).await {
        answers.push(answer.unwrap().parse().unwrap());
    }
    answers.sort_unstable();
    assert_eq!(answers, (0..100).collect::<Vec<_>>());
}
