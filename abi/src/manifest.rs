//! The export macros, which also stamp the module with its manifest.
//!
//! The manifest is a custom section, `flux:abi`, that the broker and `flux plugin inspect` read
//! without running anything. It is text, one "keyword value" a line:
//!
//! ```text
//! flux-plugin 1.0
//! kind jobtap
//! name begin-time
//! version 0.1.0
//! description Hold a job until its begin time
//! topic job.dependency.begin-time
//! capability config:policy
//! service update owner
//! order state
//! ```
//!
//! The first line carries the version of the contract. `topic`, `capability` and `service` may
//! repeat. Unknown keywords are ignored, so that a later SDK can add some.

/// Exports a [`Jobtap`](crate::Jobtap) plugin.
///
/// `topics` are the callback topics it wants to be called for (a trailing `*` matches any rest),
/// `services` its RPC methods with who may call them ("owner" or "user"), `order` how jobs are
/// announced at load ("state" or "-state").
#[macro_export]
macro_rules! jobtap {
    ($plugin:ty, $($rest:tt)*) => { $crate::__plugin!(jobtap, $plugin, $($rest)*); };
}

/// Exports a [`Scheduler`](crate::Scheduler) plugin.
#[macro_export]
macro_rules! scheduler {
    ($plugin:ty, $($rest:tt)*) => { $crate::__plugin!(scheduler, $plugin, $($rest)*); };
}

/// Exports a [`Validator`](crate::Validator) plugin.
#[macro_export]
macro_rules! validator {
    ($plugin:ty, $($rest:tt)*) => { $crate::__plugin!(validator, $plugin, $($rest)*); };
}

/// Exports a [`Frobnicator`](crate::Frobnicator) plugin.
#[macro_export]
macro_rules! frobnicator {
    ($plugin:ty, $($rest:tt)*) => { $crate::__plugin!(frobnicator, $plugin, $($rest)*); };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __plugin {
    (
        $kind:ident, $plugin:ty,
        name: $name:literal,
        description: $description:literal
        $(, topics: [$($topic:literal),* $(,)?])?
        $(, capabilities: [$($capability:literal),* $(,)?])?
        $(, services: [$($service:literal: $who:literal),* $(,)?])?
        $(, order: $order:literal)?
        $(,)?
    ) => {
        const _: () = {
            thread_local! {
                static INSTANCE: ::std::cell::RefCell<Option<$plugin>> =
                    const { ::std::cell::RefCell::new(None) };
            }

            struct Exported;

            impl $crate::macros::Slot for Exported {
                type Plugin = $plugin;

                fn with<T>(
                    f: impl FnOnce(&::std::cell::RefCell<Option<$plugin>>) -> T,
                ) -> T {
                    INSTANCE.with(f)
                }
            }

            const TEXT: &str = concat!(
                "flux-plugin 1.0\n",
                "kind ", stringify!($kind), "\n",
                "name ", $name, "\n",
                "version ", env!("CARGO_PKG_VERSION"), "\n",
                "description ", $description, "\n",
                $($("topic ", $topic, "\n",)*)?
                $($("capability ", $capability, "\n",)*)?
                $($("service ", $service, " ", $who, "\n",)*)?
                $("order ", $order, "\n",)?
            );

            #[cfg(target_arch = "wasm32")]
            #[unsafe(link_section = "flux:abi")]
            #[used]
            static MANIFEST: [u8; TEXT.len()] = {
                let mut bytes = [0; TEXT.len()];
                let mut i = 0;
                while i < bytes.len() {
                    bytes[i] = TEXT.as_bytes()[i];
                    i += 1;
                }
                bytes
            };

            #[cfg(target_arch = "wasm32")]
            $crate::__export_flux_plugin_lifecycle_1_0_0_cabi!(
                Exported with_types_in $crate::macros::exports::lifecycle
            );
            #[cfg(target_arch = "wasm32")]
            $crate::__callbacks!($kind);

            #[cfg(not(target_arch = "wasm32"))]
            const _: (&str, Option<Exported>) = (TEXT, None);
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __callbacks {
    (jobtap) => {
        $crate::__export_flux_plugin_callbacks_1_0_0_cabi!(
            Exported with_types_in $crate::macros::exports::callbacks
        );
    };
    (scheduler) => {
        $crate::__export_flux_plugin_scheduling_1_0_0_cabi!(
            Exported with_types_in $crate::macros::exports::scheduling
        );
    };
    (validator) => {
        $crate::__export_flux_plugin_validation_1_0_0_cabi!(
            Exported with_types_in $crate::macros::exports::validation
        );
    };
    (frobnicator) => {
        $crate::__export_flux_plugin_frobnication_1_0_0_cabi!(
            Exported with_types_in $crate::macros::exports::frobnication
        );
    };
}
