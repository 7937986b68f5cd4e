//! The scenarios' gRPC service, generated from `proto/echo.proto`: one method for each shape of call.
#![allow(missing_docs, unreachable_pub, clippy::all)]

tonic::include_proto!("weft.test");
