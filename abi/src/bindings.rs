//! Generated from `wit/`, from one world that has the exports of all four kinds: so they share
//! their types, and a module exports just what its macro expands.

wit_bindgen::generate!({
    inline: "
        package flux:sdk;
        world everything {
            import flux:plugin/types@1.0.0;
            import flux:plugin/effects@1.0.0;
            import flux:plugin/start@1.0.0;
            import flux:plugin/job-events@1.0.0;
            import flux:plugin/changes@1.0.0;
            import flux:plugin/ingest@1.0.0;
            import flux:plugin/host@1.0.0;
            import flux:plugin/jobs@1.0.0;
            export flux:plugin/lifecycle@1.0.0;
            export flux:plugin/callbacks@1.0.0;
            export flux:plugin/scheduling@1.0.0;
            export flux:plugin/validation@1.0.0;
            export flux:plugin/frobnication@1.0.0;
        }
    ",
    path: "wit/since_v1.0.0",
    world: "flux:sdk/everything",
    additional_derives: [PartialEq],
    generate_all,
    pub_export_macro: true,
    export_macro_name: "__export_everything",
});
