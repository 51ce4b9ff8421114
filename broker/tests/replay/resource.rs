//! `resource.*`.

use std::cell::RefCell;
use std::rc::Rc;

use flux_broker::attrs::Access;
use flux_broker::call::{Call, Calls};
use flux_broker::context::Context;
use flux_broker::handle::{Handle, Responses};
use flux_broker::methods::Methods;
use flux_broker::service::Service;
use flux_broker::services::attr::Attr;
use flux_broker::services::content::Content;
use flux_broker::services::content_sqlite::ContentSqlite;
use flux_broker::services::kvs::Kvs;
use flux_broker::services::resource::Resource;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::payload::{Empty, Object};
use flux_protocol::rpc::{Method, groups, resource as rpc};
use flux_replay::{Replay, Rules, Vector};
use serde_json::json;

use crate::instance::{Instance, run};

#[test]
fn resources_are_listed_and_drained_as_captured() {
    run(async {
        let instance = instance().await;
        let handle = Handle::new(instance.broker.router().clone());
        let scheduler = begin(&handle).await;
        let vector = Vector::load("resource-status-list-drain-undrain").unwrap();
        // How many cores each node has depends on where the test runs.
        let rules = Rules::default().bind("core").text(|text| {
            let is_xml = text.starts_with("<?xml");
            if is_xml { "a topology".to_owned() } else { text.to_owned() }
        });
        let others = ["config.", "job-manager.", "sched.", "feasibility.", "sched-simple.", "kvs."];
        let socket = instance.socket();
        Replay::new(&vector, rules, &socket)
            .ignore(move |_, message| others.iter().any(|topic| message.topic.starts_with(topic)))
            .play()
            .await
            .assert_equal();
        // New configurations are taken alike by all services.
        let other = "resource.config-reload";
        instance.sweep(|topic| topic.starts_with("resource.") && topic != other).await;
        drop(scheduler);
        handle.close();
        instance.stop().await;
    });
}

/// Four brokers on one host, of which this is the first.
async fn instance() -> Instance {
    let instance = Instance::start();
    let attrs = instance.broker.attrs();
    attrs.put("hostlist", "vm,vm,vm,vm", Access::Immutable);
    attrs.put("hostname", "vm", Access::ReadOnly);
    let store = instance.with::<Attr>().await.with::<Content>().await;
    let store = store.with::<ContentSqlite>().await.with::<Kvs>().await;
    store.with::<Groups>().await.with::<Resource>().await
}

/// What happened before the captured commands: the brokers went online and told what they have,
/// and a scheduler was loaded.
async fn begin(handle: &Handle) -> Responses<rpc::Acquire> {
    let mut scheduler = handle
        .send::<rpc::Acquire>(Nodeid::ANY, Flags::default(), &rpc::AcquireRequest::default())
        .unwrap();
    let mut journal = handle.stream::<rpc::Journal>(Nodeid::ANY, &Empty).unwrap();
    set_online(handle, "0").await;
    until_event(&mut journal, "online").await;
    let xml = handle.rpc::<rpc::TopoGet>(&Empty).await.unwrap().0;
    let cores = match xml.matches("type=\"Core\"").count() - 1 {
        0 => "0".to_owned(),
        last => format!("0-{last}"),
    };
    let children = json!({"version": 1, "execution": {
        "R_lite": [{"rank": "1-3", "children": {"core": cores}}],
        "nodelist": ["vm,vm,vm"],
    }});
    let request = rpc::TopoReduceRequest { count: 3, resource: children };
    handle.notify::<rpc::TopoReduce>(Nodeid::ANY, Flags::default(), &request).unwrap();
    let first = scheduler.next().await.unwrap();
    assert_eq!(first.up.as_deref(), Some("0"));
    until_event(&mut journal, "resource-define").await;
    for online in ["0-1,3", "0-3"] {
        set_online(handle, online).await;
        until_event(&mut journal, "online").await;
    }
    assert_eq!(scheduler.next().await.unwrap().up.as_deref(), Some("1,3"));
    assert_eq!(scheduler.next().await.unwrap().up.as_deref(), Some("2"));
    scheduler
}

async fn until_event(journal: &mut Responses<rpc::Journal>, name: &str) {
    loop {
        let response = journal.next().await.unwrap();
        if response.events.iter().any(|event| event.name == name) {
            return;
        }
    }
}

async fn set_online(handle: &Handle, members: &str) {
    let request = Object::from_iter([("members".to_owned(), json!(members))]);
    handle.rpc::<SetOnline>(&request).await.unwrap();
}

/// The group of online brokers, as the test says.
struct Groups {
    online: Rc<RefCell<String>>,
    watchers: Calls<groups::GetResponse, String>,
}

struct SetOnline;

impl Method for SetOnline {
    const TOPIC: &'static str = "groups.set-online";
    const WHO: flux_protocol::rpc::Who = flux_protocol::rpc::Who::Owner;
    const REPLY: flux_protocol::rpc::Reply = flux_protocol::rpc::Reply::One;
    type Request = Object;
    type Response = Empty;
}

impl Service for Groups {
    const NAME: &'static str = "groups";
    const SERVICES: &'static [&'static str] = &["groups"];

    async fn start(_: &Context<Groups>, _: &[String]) -> Result<Groups, Failure> {
        Ok(Groups { online: Rc::default(), watchers: Calls::default() })
    }

    fn methods() -> Methods<Groups> {
        Methods::default().serve::<groups::Get>(Groups::get).serve::<SetOnline>(Groups::set_online)
    }
}

impl Groups {
    fn get(
        &mut self,
        _: &Context<Groups>,
        request: groups::NameRequest,
        call: Call<groups::GetResponse>,
    ) {
        self.watchers.insert(call, request.name);
        self.tell();
    }

    fn set_online(&mut self, _: &Context<Groups>, request: Object, call: Call<Empty>) {
        let members = request.get("members").and_then(|members| members.as_str()).unwrap();
        members.clone_into(&mut self.online.borrow_mut());
        self.tell();
        call.reply(&Empty);
    }

    fn tell(&self) {
        for (call, name) in self.watchers.iter() {
            let members = match name.as_str() {
                "broker.online" => self.online.borrow().clone(),
                _ => String::new(),
            };
            call.send(&groups::GetResponse { members });
        }
    }
}
