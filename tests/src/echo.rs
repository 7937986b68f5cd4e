//! The scenarios' gRPC service, generated from `proto/echo.proto`: one method for each shape of call.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines)]

tonic::include_proto!("weft.test");
