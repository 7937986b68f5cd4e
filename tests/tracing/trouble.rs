//! A collector that is dead, slow or talks nonsense: requests do not feel it, and what is lost is counted.

use weft_tests::mesh::{App, Http, until};

use super::{Chain, policy};

#[tokio::test]
async fn a_bad_collector_costs_spans_which_are_counted_and_no_request() {
    let dead = App::raw(|_| async {}).await.address;
    let slow = App::raw(|mut wire| async move {
        let _ = wire.rest().await;
    })
    .await;
    let garbage = App::raw(|mut wire| async move {
        wire.try_send([0xff; 4096]).await;
        let _ = wire.rest().await;
    })
    .await;
    for (kind, address) in [("dead", dead), ("slow", slow.address), ("garbage", garbage.address)] {
        for protocol in ["OtlpGrpc", "OtlpHttp", "Zipkin"] {
            let export =
                format!("export: {{endpoint: 'http://{address}', protocol: {protocol}, timeout: 200ms}}");
            let chain = Chain::start(true, &policy(&format!("{export}, samplingPercent: 100"))).await;
            let mut http = Http::open(chain.mesh.door("client-0", "front:8080")).await;
            for _ in 0..50 {
                assert_eq!(http.get("/").await.unwrap().status, 200, "{kind} {protocol}");
            }
            let sidecar = chain.mesh.sidecar("front-0");
            until("what is lost is counted", async || {
                let dropped = sidecar.metric("weft_telemetry_dropped_total", &["span", "export"]).await;
                (dropped > 0.0).then_some(())
            })
            .await;
            assert_eq!(http.get("/").await.unwrap().status, 200, "{kind} {protocol}");
            assert_eq!(sidecar.metric("weft_spans_exported_total", &[]).await, 0.0, "{kind} {protocol}");
        }
    }
}

#[tokio::test]
async fn a_collector_that_does_not_keep_up_loses_what_the_queue_does_not_hold() {
    let slow = App::raw(|mut wire| async move {
        let _ = wire.rest().await;
    })
    .await;
    let export =
        format!("export: {{endpoint: 'http://{}', timeout: 60s}}, samplingPercent: 100", slow.address);
    let chain = Chain::start(true, &policy(&export)).await;
    let mut http = Http::open(chain.mesh.door("client-0", "front:8080")).await;
    let sidecar = chain.mesh.sidecar("client-0");
    until("the queue is full", async || {
        for _ in 0..100 {
            assert_eq!(http.get("/").await.unwrap().status, 200);
        }
        let dropped = sidecar.metric("weft_telemetry_dropped_total", &["span", "queue"]).await;
        (dropped > 0.0).then_some(())
    })
    .await;
}
