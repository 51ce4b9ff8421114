//! The queue of jobs: states, events, urgency, exceptions, queues, plugins.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::fluid::JobId;
use crate::payload::{Empty, Object};
use crate::{json_payload, methods};

/// Stands for every user in requests with a `userid`.
pub const ANY_USER: u32 = u32::MAX;

/// New jobs from job-ingest, in the order of their submission.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubmitRequest {
    pub jobs: Vec<NewJob>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewJob {
    pub id: JobId,
    pub userid: u32,
    pub urgency: u32,
    /// Seconds since 1970.
    pub t_submit: f64,
    /// Bits of [`super::job_ingest::flags`].
    pub flags: u32,
    /// Jobspec without the environment.
    pub jobspec: Box<RawValue>,
    /// Of a request with a signature that somebody else could hand in again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<Signed>,
}

/// What tells a signed request from all others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// SHA-256 of J, 64 hexadecimal digits.
    pub digest: String,
    /// Seconds since 1970 after which nobody believes the signature.
    pub ends: u64,
}

/// Jobs that were refused, with the reasons.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SubmitResponse {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<(JobId, String)>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RaiseRequest {
    pub id: JobId,
    /// 0 (fatal) to 7.
    pub severity: i64,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_status: Option<i64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RaiseAllRequest {
    pub dry_run: bool,
    /// User id, or [`ANY_USER`].
    pub userid: u32,
    /// Mask of job states.
    pub states: u32,
    pub severity: i64,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KillRequest {
    pub id: JobId,
    pub signum: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KillAllRequest {
    pub dry_run: bool,
    /// User id, or [`ANY_USER`].
    pub userid: u32,
    pub signum: i64,
}

/// How many jobs matched, and for how many it failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CountErrors {
    pub count: u64,
    pub errors: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UrgencyRequest {
    pub id: JobId,
    pub urgency: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UrgencyResponse {
    pub old_urgency: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpdateRequest {
    pub id: JobId,
    /// By dotted key of the jobspec, such as `attributes.system.duration`.
    pub updates: Object,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MemoRequest {
    pub id: JobId,
    /// null removes a key.
    pub memo: Object,
    #[serde(default)]
    pub volatile: bool,
}

/// Why a job waits, in the words of a program that the job manager has run for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExplainRequest {
    pub id: JobId,
    /// Whose word it is; a later one of the same name takes its place.
    pub name: String,
    /// null: no longer.
    pub text: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitRequest {
    /// -1 is any waitable job.
    pub id: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitResponse {
    pub id: JobId,
    pub success: bool,
    pub errstr: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListRequest {
    /// 0 is no limit.
    pub max_entries: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListResponse {
    pub jobs: Vec<ListedJob>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListedJob {
    pub id: JobId,
    pub userid: u32,
    pub urgency: u32,
    pub priority: i64,
    pub t_submit: f64,
    /// Bit of the state.
    pub state: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetattrRequest {
    pub id: JobId,
    pub attrs: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetinfoResponse {
    pub max_jobid: u64,
}

/// One of the keys: list, load or remove.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct JobtapRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_only: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conf: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<String>,
}

/// Only `query_only` is answered with the list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobtapResponse {
    pub plugins: Vec<Value>,
    /// Those that do not run after faults, with "down" or "quarantined". Not in flux-core.
    #[serde(default, skip_serializing_if = "Object::is_empty")]
    pub down: Object,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NameRequest {
    pub name: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueListResponse {
    /// Named queues; none where there is one without a name.
    pub queues: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct QueueStatusRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueStatusResponse {
    pub enable: bool,
    pub start: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
    /// What keeps a queue from being started that an administrator did start: `parent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<String>,
    /// The queue that a virtual one is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueEnableRequest {
    pub enable: bool,
    pub all: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueStartRequest {
    pub start: bool,
    pub all: bool,
    /// Not to be remembered over a restart.
    #[serde(default)]
    pub nocheckpoint: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdleResponse {
    pub pending: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AllocQueryResponse {
    pub queue_length: u64,
    pub alloc_pending: u64,
    pub running: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResourceStatusResponse {
    /// R, or null.
    pub allocated: Value,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SchedHelloRequest {
    #[serde(default, rename = "partial-ok")]
    pub partial_ok: bool,
}

/// A job that holds resources.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SchedHelloResponse {
    pub id: JobId,
    pub priority: i64,
    pub userid: u32,
    pub t_submit: f64,
    /// Idset of ranks that are free already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SchedReadyRequest {
    /// `limited` or `unlimited`.
    pub mode: String,
    /// Number of alloc requests at a time, when limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SchedReadyResponse {
    pub count: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecHelloRequest {
    pub service: String,
    /// A job with `attributes.system.exec.test` is not executed, and may be started before its R
    /// can be read in the KVS.
    #[serde(default)]
    pub simulates: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct JournalRequest {
    /// Inactive jobs, too.
    #[serde(default)]
    pub full: bool,
    /// Only events with these names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Object>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny: Option<Object>,
}

/// Events of one job; job id -1 without events ends the backlog.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JournalResponse {
    pub id: i64,
    pub events: Vec<Box<RawValue>>,
    /// With the submit event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobspec: Option<Box<RawValue>>,
    /// With the alloc event.
    #[serde(default, rename = "R", skip_serializing_if = "Option::is_none")]
    pub r: Option<Box<RawValue>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CancelRequest {
    pub matchtag: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PurgeRequest {
    /// Seconds; -1 is any age.
    #[serde(default = "no_limit")]
    pub age_limit: f64,
    /// Number of inactive jobs to keep; -1 is any number.
    #[serde(default = "no_number")]
    pub num_limit: i64,
    #[serde(default)]
    pub batch: i64,
    #[serde(default)]
    pub force: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PurgeIdRequest {
    pub id: JobId,
    #[serde(default)]
    pub force: Value,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CountResponse {
    pub count: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HousekeepingKillRequest {
    pub signum: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobid: Option<JobId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BatchTimeoutRequest {
    /// Seconds.
    pub timeout: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HistoryRequest {
    /// A Python slice, such as `[:1]`.
    pub slice: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HistoryResponse {
    pub jobs: Vec<JobId>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PostEventRequest {
    pub id: JobId,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Object>,
}

fn no_limit() -> f64 {
    -1.0
}

fn no_number() -> i64 {
    -1
}

json_payload!(
    SubmitRequest,
    SubmitResponse,
    RaiseRequest,
    RaiseAllRequest,
    KillRequest,
    KillAllRequest,
    CountErrors,
    UrgencyRequest,
    UrgencyResponse,
    UpdateRequest,
    ExplainRequest,
    MemoRequest,
    WaitRequest,
    WaitResponse,
    ListRequest,
    ListResponse,
    GetattrRequest,
    GetinfoResponse,
    JobtapRequest,
    JobtapResponse,
    NameRequest,
    QueueListResponse,
    QueueStatusRequest,
    QueueStatusResponse,
    QueueEnableRequest,
    QueueStartRequest,
    IdleResponse,
    AllocQueryResponse,
    ResourceStatusResponse,
    SchedHelloRequest,
    SchedHelloResponse,
    SchedReadyRequest,
    SchedReadyResponse,
    ExecHelloRequest,
    JournalRequest,
    JournalResponse,
    CancelRequest,
    PurgeRequest,
    PurgeIdRequest,
    CountResponse,
    HousekeepingKillRequest,
    BatchTimeoutRequest,
    HistoryRequest,
    HistoryResponse,
    PostEventRequest,
);

methods! {
    /// From job-ingest. Which jobs are refused stands in the response.
    Submit: "job-manager.submit", Owner, One, SubmitRequest => SubmitResponse;
    /// ENOENT "unknown job id", "job is inactive"; EPROTO bad severity or type;
    /// EPERM "guests can only raise exceptions on their own jobs".
    Raise: "job-manager.raise", User, One, RaiseRequest => Empty;
    RaiseAll: "job-manager.raiseall", User, One, RaiseAllRequest => CountErrors;
    /// EINVAL "Invalid signal number", "unknown job id", "job is inactive", "job is not running".
    Kill: "job-manager.kill", User, One, KillRequest => Empty;
    KillAll: "job-manager.killall", User, One, KillAllRequest => CountErrors;
    /// EINVAL: range, unknown job, inactive, already allocated; EPERM: guest above the default, or
    /// another's job.
    Urgency: "job-manager.urgency", User, One, UrgencyRequest => UrgencyResponse;
    /// ENOENT: unknown job; EINVAL: inactive, "update of K not supported", or a plugin's text.
    Update: "job-manager.update", User, One, UpdateRequest => Empty;
    Memo: "job-manager.memo", User, One, MemoRequest => Empty;
    /// Of flux-wasm alone. EINVAL: unknown job, or inactive.
    Explain: "job-manager.explain", Owner, One, ExplainRequest => Empty;
    /// ECHILD: not waitable, or none left; EINVAL: someone else waits for it.
    Wait: "job-manager.wait", Owner, One, WaitRequest => WaitResponse;
    List: "job-manager.list", Owner, One, ListRequest => ListResponse;
    Getattr: "job-manager.getattr", User, One, GetattrRequest => Object;
    Getinfo: "job-manager.getinfo", User, One, Empty => GetinfoResponse;
    /// EEXIST, ENOENT, EINVAL; no payload is EPROTO.
    Jobtap: "job-manager.jobtap", Owner, One, JobtapRequest => JobtapResponse;
    JobtapQuery: "job-manager.jobtap-query", Owner, One, NameRequest => Object;
    /// Ends a plugin's quarantine. ENOENT; EIO: it faulted again. Not in flux-core.
    JobtapRearm: "job-manager.jobtap-rearm", Owner, One, NameRequest => Empty;
    QueueList: "job-manager.queue-list", User, One, Empty => QueueListResponse;
    /// EINVAL "'X' is not a valid queue".
    QueueStatus: "job-manager.queue-status", User, One, QueueStatusRequest => QueueStatusResponse;
    QueueEnable: "job-manager.queue-enable", Owner, One, QueueEnableRequest => Empty;
    QueueStart: "job-manager.queue-start", Owner, One, QueueStartRequest => Empty;
    /// Answered when no job is active.
    Drain: "job-manager.drain", Owner, One, Empty => Empty;
    /// Answered when no job runs or cleans up.
    Idle: "job-manager.idle", Owner, One, Empty => IdleResponse;
    AllocQuery: "job-manager.alloc-query", User, One, Empty => AllocQueryResponse;
    ResourceStatus: "job-manager.resource-status", Owner, One, Empty => ResourceStatusResponse;
    /// Jobs that hold resources; ENODATA at the end.
    SchedHello: "job-manager.sched-hello", Owner, Stream, SchedHelloRequest => SchedHelloResponse;
    SchedReady: "job-manager.sched-ready", Owner, One, SchedReadyRequest => SchedReadyResponse;
    /// EINVAL: another exec service has starts pending.
    ExecHello: "job-manager.exec-hello", Owner, One, ExecHelloRequest => Empty;
    Journal: "job-manager.events-journal", Owner, Stream, JournalRequest => JournalResponse;
    JournalCancel: "job-manager.events-journal-cancel", Owner, Never, CancelRequest => Empty;
    Purge: "job-manager.purge", Owner, One, PurgeRequest => CountResponse;
    /// ENOENT "id not found"; EINVAL: active.
    PurgeId: "job-manager.purge-id", Owner, One, PurgeIdRequest => CountResponse;
    HousekeepingKill: "job-manager.housekeeping-kill", Owner, One, HousekeepingKillRequest => Empty;
    SetBatchTimeout: "job-manager.set-batch-timeout", Owner, One, BatchTimeoutRequest => Empty;
    History: "job-manager.history.get", User, One, HistoryRequest => HistoryResponse;
    PostEvent: "job-manager.post-event.post", Owner, One, PostEventRequest => Empty;
}
