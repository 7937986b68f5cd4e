//! When a window of changes ends, and that nothing is published before everything was listed.

use super::*;
use crate::kubernetes::roll::Roll;
use crate::kubernetes::watch::kinds::WATCHED;
use crate::kubernetes::watch::sight::see;
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::status::Status;
use serde_json::json;
use std::sync::Arc;
use weft_control_plane_core::config::{Key, ResourceType};
use weft_control_plane_core::model::Kind;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_window_ends_after_quiet_and_never_later_than_the_longest_wait() {
    let start = Instant::now();
    let mut window = Window::default();
    assert_eq!(window.ends(), None);
    window.extend(start);
    assert_eq!(window.ends(), Some(start + QUIET));
    let mut last = start;
    while last < start + LONGEST * 2 {
        last += QUIET / 2;
        window.extend(last);
        assert!(window.ends() <= Some(start + LONGEST));
    }
    assert_eq!(window.ends(), Some(start + LONGEST));
    assert_eq!(window.first(), Some(start));
}

#[tokio::test]
async fn nothing_is_published_before_every_kind_was_listed_and_then_all_of_it_at_once() {
    let (publisher, status) = (Publisher::default(), Arc::new(Status::default()));
    let mut reader = publisher.reader();
    let metrics = Metrics::register(&mut crate::metrics::registry());
    let take = Take::new(publisher, Arc::clone(&status), metrics.clone());
    let facts = Facts::new("weft-system", "cluster.local", Roll::default());
    let feed = Feed::new(facts, take, metrics.watching.clone());
    let (events, received) = mpsc::channel(64);
    let running = tokio::spawn(feed.run(received));
    let pod = |name: &str| {
        let object = json!({
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"containers": [{"name": "app"}]},
        });
        Event::Seen(see(Kind::Pod, "v1", object).unwrap())
    };
    let (last, others) = WATCHED.split_last().unwrap();
    for watched in others {
        events.send(Event::Begun(watched.kind)).await.unwrap();
        if watched.kind == Kind::Pod {
            events.send(pod("a")).await.unwrap();
        }
        events.send(Event::Complete(watched.kind)).await.unwrap();
    }
    // Taken in for certain once one more event has found room and the channel is empty again.
    tokio::time::timeout(PATIENCE, async {
        while events.capacity() < events.max_capacity() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert!(reader.borrow().is_none());
    assert!(status.manifests().problems.iter().any(|problem| problem.reason.contains(last.kind.as_str())));
    events.send(Event::Absent(last.kind)).await.unwrap();
    let published = tokio::time::timeout(PATIENCE, reader.wait_for(Option::is_some)).await.unwrap();
    let published = published.unwrap().clone().unwrap();
    assert_eq!(published.generation(), 1);
    assert!(published.resource(&Key::new(ResourceType::Inbound, "shop/a")).is_some());
    events.send(pod("b")).await.unwrap();
    let later = reader.wait_for(|now| now.as_ref().is_some_and(|now| now.generation() == 2));
    let later = tokio::time::timeout(PATIENCE, later).await.unwrap().unwrap().clone().unwrap();
    assert!(later.resource(&Key::new(ResourceType::Inbound, "shop/b")).is_some());
    drop(events);
    tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
}
