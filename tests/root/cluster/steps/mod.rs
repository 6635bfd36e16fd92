//! The steps, those that wait longest first.

mod describe;
mod failures;
mod hostile;
mod images;
mod inside;
mod lifecycle;
mod node;
mod operators;
mod outages;
mod refusals;
mod volumes;
mod workloads;

use super::Step;

macro_rules! steps {
    ($($module:ident :: $name:ident,)*) => {
        &[$(Step { name: stringify!($name), run: $module::$name },)*]
    };
}

pub(super) const STEPS: &[Step] = steps![
    outages::nothing_restarts_when_the_api_server_is_gone_for_three_minutes,
    outages::a_killed_kubelet_touches_nothing_when_it_is_back,
    outages::a_lost_runtime_is_named_and_its_pods_live_on,
    workloads::a_cron_job_runs_at_the_full_minute,
    volumes::changed_config_maps_and_secrets_arrive_in_the_volume,
    hostile::growth_of_the_hosts_file_is_counted,
    hostile::the_images_user_is_kept_over_restarts,
    failures::a_crashing_container_backs_off,
    images::an_image_that_does_not_exist_backs_off,
    workloads::a_job_that_fails_twice_succeeds,
    workloads::a_deployment_is_scaled_and_rolled,
    failures::a_failed_liveness_probe_restarts_the_container,
    failures::a_missing_object_is_named_and_the_pod_starts_once_it_is_there,
    lifecycle::a_deleted_pod_gets_its_grace_period_and_a_forced_one_none,
    node::a_node_that_runs_short_is_tainted_until_it_does_not,
    node::the_lease_is_renewed_and_the_conditions_are_fresh,
    workloads::a_daemon_set_with_host_network_serves_on_the_node,
    lifecycle::init_containers_and_a_sidecar_come_in_order,
    lifecycle::a_static_pod_has_a_mirror_that_cannot_be_deleted,
    lifecycle::an_active_deadline_ends_the_pod,
    failures::an_out_of_memory_kill_is_called_by_its_name,
    failures::probes_of_every_kind_make_a_pod_ready,
    failures::a_termination_message_comes_from_its_file_or_the_log,
    inside::the_environment_holds_every_kind_of_variable,
    inside::names_and_addresses_are_as_the_pod_says,
    inside::the_security_context_is_what_the_process_has,
    inside::resources_become_cgroup_limits,
    inside::the_service_account_token_is_valid_and_bound_to_the_pod,
    volumes::every_kind_of_volume_holds_what_it_should,
    volumes::a_sub_path_shows_only_its_part,
    images::pull_policies_and_bad_names_are_told_apart,
    refusals::a_pod_that_does_not_fit_is_rejected_with_its_reason,
    refusals::what_is_not_built_yet_is_refused_by_its_field,
    operators::logs_are_cut_followed_and_kept_across_a_restart,
    operators::exec_attach_and_port_forward_answer,
    operators::the_node_answers_for_stats_metrics_and_health,
    hostile::logs_never_follow_a_link_that_a_pod_made,
    hostile::a_probe_does_not_follow_a_redirect_to_another_host,
    hostile::bombs_among_the_static_pods_harm_nobody,
    node::the_node_describes_the_machine,
    describe::objects_and_events_read_like_upstreams,
];
