/* A validator that refuses jobs named foo. */
#include "../flux_plugin.h"
#include "../validator.h"

#include <stdlib.h>
#include <string.h>

FLUX_PLUGIN("kind validator\\n"
            "name nofoo\\n"
            "version 1\\n"
            "description Refuse jobs named foo\\n");

bool exports_flux_plugin_lifecycle_init(exports_flux_plugin_lifecycle_context_t *context,
                                        validator_string_t *err)
{
    (void)err;
    exports_flux_plugin_lifecycle_context_free(context);
    return true;
}

bool exports_flux_plugin_lifecycle_configure(validator_string_t *config,
                                             validator_string_t *broker_config,
                                             validator_string_t *err)
{
    (void)err;
    validator_string_free(config);
    validator_string_free(broker_config);
    return true;
}

void exports_flux_plugin_lifecycle_query(validator_string_t *ret)
{
    validator_string_dup(ret, "{}");
}

void exports_flux_plugin_lifecycle_save(validator_list_u8_t *ret)
{
    ret->ptr = NULL;
    ret->len = 0;
}

static bool is_foo(const exports_flux_plugin_validation_submission_t *submission)
{
    if (!submission->job.is_some)
        return false;
    const validator_string_t *name = &submission->job.val.name;
    return name->len == 3 && memcmp(name->ptr, "foo", 3) == 0;
}

void exports_flux_plugin_validation_validate(exports_flux_plugin_validation_list_submission_t *jobs,
                                             exports_flux_plugin_validation_list_verdict_t *ret)
{
    ret->len = jobs->len;
    ret->ptr = calloc(jobs->len ? jobs->len : 1, sizeof(*ret->ptr));
    if (!ret->ptr)
        abort();
    for (size_t i = 0; i < jobs->len; i++) {
        exports_flux_plugin_validation_verdict_t *verdict = &ret->ptr[i];
        verdict->tag = FLUX_PLUGIN_INGEST_VERDICT_ACCEPT;
        if (is_foo(&jobs->ptr[i])) {
            verdict->tag = FLUX_PLUGIN_INGEST_VERDICT_REFUSE;
            verdict->val.refuse.errnum = FLUX_EINVAL;
            validator_string_dup(&verdict->val.refuse.text, "jobs named foo are not run here");
        }
    }
    exports_flux_plugin_validation_list_submission_free(jobs);
}
