/* Write a Flux plugin in C.
 *
 * Include the header of the plugin's kind (validator.h, frobnicator.h, jobtap.h, scheduler.h),
 * compile the .c file of that name along with yours, and implement the functions that it
 * declares as exports_flux_plugin_*. Those headers are generated from the frozen contract in
 * abi/wit; this one adds what names the plugin.
 *
 *     clang --target=wasm32-wasi -O2 -mexec-model=reactor -nostartfiles -Wl,--no-entry \
 *           -o mine.wasm mine.c validator.c
 */
#ifndef FLUX_PLUGIN_H
#define FLUX_PLUGIN_H

/* The manifest, a custom section that the broker reads before it runs anything. LINES holds one
 * "keyword value" after the other, each ended by "\\n" in the source:
 *
 *     FLUX_PLUGIN("kind validator\\n"
 *                 "name nofoo\\n"
 *                 "version 1\\n"
 *                 "description Refuse jobs named foo\\n");
 */
#define FLUX_PLUGIN(LINES)                                  \
    __asm__(".section \".custom_section.flux:abi\",\"\",@\n"    \
            ".ascii \"flux-plugin 1.0\\n" LINES "\"\n")

/* Linux errno numbers that refusals use. */
#define FLUX_EPERM 1
#define FLUX_ENOENT 2
#define FLUX_EINVAL 22

#endif
