use super::*;
use flux_plugin::testing;
use serde_json::json;

fn verdict(schema: &Value, jobspec: &Value) -> String {
    let config = json!({ "files": { "schema": schema.to_string() } }).to_string();
    let mut plugin = SchemaRules::init(&testing::context(&config, "{}")).unwrap();
    let jobspec = jobspec.to_string();
    let submission = Submission { job: None, userid: 0, urgency: 16, flags: 0, jobspec };
    match plugin.validate(&submission) {
        Verdict::Accept => "ok".to_owned(),
        Verdict::Refuse(refusal) => refusal.text,
        other => format!("{other:?}"),
    }
}

#[test]
fn a_jobspec_is_held_to_the_sites_schema() {
    let schema = json!({
        "$schema": "http://json-schema.org/draft-04/schema#",
        "definitions": {"count": {"type": "integer", "minimum": 1}},
        "type": "object",
        "required": ["version", "resources"],
        "properties": {
            "version": {"enum": [1]},
            "resources": {"type": "array", "minItems": 1, "items": {
                "type": "object",
                "properties": {"count": {"$ref": "#/definitions/count"}},
            }},
        },
        "additionalProperties": false,
    });
    let cases = [
        (json!({"version": 1, "resources": [{"count": 2}]}), "ok"),
        (json!({"version": 1}), "'resources' is a required property"),
        (json!({"version": 2, "resources": []}), "[] should be non-empty"),
        (json!({"version": 2, "resources": [{}]}), "2 is not one of [1]"),
        (json!({"version": 1, "resources": {}}), "{} is not of type 'array'"),
        (json!({"version": 1, "resources": [{"count": 0}]}), "0 is less than the minimum of 1"),
        (
            json!({"version": 1, "resources": [{}], "x": 1}),
            "Additional properties are not allowed ('x' was unexpected)",
        ),
    ];
    for (jobspec, expected) in cases {
        assert_eq!(verdict(&schema, &jobspec), expected);
    }
}

#[test]
fn keywords_of_all_drafts_judge() {
    let cases = [
        (json!({"type": ["string", "null"]}), json!(1), "1 is not of type 'string', 'null'"),
        (json!({"type": "integer"}), json!(1.0), "ok"),
        (json!({"const": "a"}), json!("b"), "'a' was expected"),
        (json!({"pattern": "^a+$"}), json!("ab"), "'ab' does not match '^a+$'"),
        (json!({"minLength": 2}), json!("é"), "'é' is too short"),
        (
            json!({"maximum": 3, "exclusiveMaximum": true}),
            json!(3),
            "3 is greater than the maximum of 3",
        ),
        (json!({"exclusiveMinimum": 3}), json!(3), "3 is less than or equal to the minimum of 3"),
        (json!({"multipleOf": 4}), json!(6), "6 is not a multiple of 4"),
        (json!({"uniqueItems": true}), json!([1, 1.0]), "[1, 1.0] has non-unique elements"),
        (
            json!({"items": [{"type": "string"}], "additionalItems": false}),
            json!(["a", 2]),
            "Expected at most 1 items but found 1 extra",
        ),
        (
            json!({"prefixItems": [true], "items": {"type": "null"}}),
            json!([1, 2]),
            "2 is not of type 'null'",
        ),
        (
            json!({"anyOf": [{"type": "null"}, {"type": "array"}]}),
            json!("x"),
            "'x' is not valid under any of the given schemas",
        ),
        (json!({"oneOf": [{}, {}]}), json!(true), "True is valid under each of several"),
        (
            json!({"not": {"type": "string"}}),
            json!("it's"),
            "\"it's\" should not be valid under {'type': 'string'}",
        ),
        (
            json!({"if": {"required": ["a"]}, "then": {"required": ["b"]}}),
            json!({"a": 1}),
            "'b' is a required property",
        ),
        (json!({"dependentRequired": {"a": ["b"]}}), json!({"a": 1}), "'b' is a dependency of 'a'"),
        (
            json!({"patternProperties": {"^n": {"type": "number"}}}),
            json!({"n1": "x"}),
            "'x' is not of type 'number'",
        ),
        (json!({"propertyNames": {"maxLength": 1}}), json!({"ab": 1}), "'ab' is too long"),
        (
            json!({"contains": {"type": "string"}}),
            json!([1]),
            "[1] does not contain items matching the given schema",
        ),
        (json!(false), json!(null), "False schema does not allow None"),
    ];
    for (schema, value, expected) in cases {
        assert_eq!(verdict(&schema, &value), expected, "{schema}");
    }
}

#[test]
fn a_schema_that_cannot_be_used_is_refused_at_load() {
    let error = |config: Value| {
        SchemaRules::init(&testing::context(&config.to_string(), "{}")).err().unwrap_or_default()
    };
    assert!(error(json!({})).starts_with("a schema is required"));
    let of = |text: &str| error(json!({ "files": { "schema": text } }));
    assert!(of("{").starts_with("schema: EOF"));
    assert!(of(r#"{"pattern": "("}"#).starts_with("schema: pattern '('"));
    let text = "schema: unresolvable reference: http://elsewhere/x";
    assert_eq!(of(r#"{"$ref": "http://elsewhere/x"}"#), text);
}

#[test]
fn a_schema_that_refers_to_itself_ends() {
    let tree = json!({"properties": {"child": {"$ref": "#"}}, "additionalProperties": false});
    assert_eq!(verdict(&tree, &json!({"child": {"child": {}}})), "ok");
    let text = "Additional properties are not allowed ('x' was unexpected)";
    assert_eq!(verdict(&tree, &json!({"child": {"x": 1}})), text);
    assert!(verdict(&json!({"$ref": "#"}), &json!(1)).contains("nested too deeply"));
}
