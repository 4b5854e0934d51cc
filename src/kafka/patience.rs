//! Threads that wait for a free CPU.

/// Makes this thread wait for a free CPU, instead of taking one from a working thread (`SCHED_BATCH`, sched(7)). When
/// all CPUs are busy more work gathers for it, and there are fewer switches. Where the system forbids that, the policy
/// stays as it was.
#[cfg(target_os = "linux")]
pub(super) fn be_patient() {
    use thread_priority::{
        NormalThreadSchedulePolicy, ThreadPriority, ThreadPriorityOsValue, ThreadSchedulePolicy,
        set_thread_priority_and_policy, thread_native_id,
    };
    let batch = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
    // The usual nice value: 0.
    let priority = ThreadPriority::Os(ThreadPriorityOsValue::default());
    let _ = set_thread_priority_and_policy(thread_native_id(), priority, batch);
}

/// Only Linux has such a policy; without it some CPU time is lost and nothing else.
#[cfg(not(target_os = "linux"))]
pub(super) fn be_patient() {}
