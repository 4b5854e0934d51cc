//! Threads that wait for a CPU that is free.

/// This thread waits until a CPU is free, instead of taking one from a thread that is at work (`SCHED_BATCH`, sched(7)).
/// With all CPUs busy more gathers for it that way, and there are fewer switches. Where that is forbidden it is as it was.
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

/// Linux alone has such a policy. Nothing depends on it but some CPU time.
#[cfg(not(target_os = "linux"))]
pub(super) fn be_patient() {}
