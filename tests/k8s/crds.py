"""The fields of the kinds that no Python package describes, as far as our manifests use them: name -> type, ``!`` for required.

A type is str, int, bool or scalar (a number or a string), a type's name, ``list[…]``, ``dict(str, …)``, or a tuple of the values
that there are. What is not here is not used, and a typo.
"""

from typing import TypeAlias

Field: TypeAlias = str | tuple[str, ...]

KINDS: dict[tuple[str, str], str] = {
    ("monitoring.coreos.com/v1", "PodMonitor"): "PodMonitor",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "PrometheusRule",
    ("keda.sh/v1alpha1", "ScaledObject"): "ScaledObject",
    ("inference.networking.k8s.io/v1", "InferencePool"): "InferencePool",
    ("inference.networking.x-k8s.io/v1alpha1", "EndpointPickerConfig"): "EndpointPickerConfig",
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): "HTTPRoute",
    ("kustomize.config.k8s.io/v1beta1", "Kustomization"): "Kustomization",
    ("kustomize.config.k8s.io/v1alpha1", "Component"): "Kustomization",
}
_OBJECT: dict[str, Field] = {"apiVersion!": "str", "kind!": "str", "metadata!": "V1ObjectMeta"}
TYPES: dict[str, dict[str, Field]] = {
    "PodMonitor": {**_OBJECT, "spec!": "PodMonitorSpec"},
    "PodMonitorSpec": {
        "selector!": "V1LabelSelector",
        "namespaceSelector": "NamespaceSelector",
        "podMetricsEndpoints!": "list[PodMetricsEndpoint]",
    },
    "NamespaceSelector": {"any": "bool", "matchNames": "list[str]"},
    "PodMetricsEndpoint": {"port!": "str", "path": "str", "interval": "Duration", "scrapeTimeout": "Duration"},
    "PrometheusRule": {**_OBJECT, "spec!": "PrometheusRuleSpec"},
    "PrometheusRuleSpec": {"groups!": "list[RuleGroup]"},
    "RuleGroup": {"name!": "str", "rules!": "list[Rule]"},
    "Rule": {
        "alert!": "str",
        "expr!": "PromQL",
        "for": "Duration",
        "labels!": "RuleLabels",
        "annotations!": "RuleAnnotations",
    },
    "RuleLabels": {"severity!": ("warning", "critical")},
    "RuleAnnotations": {"summary!": "str", "description!": "str"},
    "ScaledObject": {**_OBJECT, "spec!": "ScaledObjectSpec"},
    "ScaledObjectSpec": {
        "scaleTargetRef!": "ScaleTarget",
        "minReplicaCount": "int",
        "maxReplicaCount": "int",
        "pollingInterval": "int",
        "cooldownPeriod": "int",
        "advanced": "ScaledObjectAdvanced",
        "triggers!": "list[PrometheusTrigger]",
    },
    "ScaleTarget": {"apiVersion!": "str", "kind!": "str", "name!": "str"},
    "ScaledObjectAdvanced": {"horizontalPodAutoscalerConfig": "ScaledObjectAutoscaler"},
    "ScaledObjectAutoscaler": {"behavior": "V2HorizontalPodAutoscalerBehavior"},
    "PrometheusTrigger": {
        "type!": ("prometheus",),
        "metricType": ("AverageValue", "Value"),
        "metadata!": "PrometheusTriggerMetadata",
    },
    "PrometheusTriggerMetadata": {"serverAddress!": "str", "query!": "PromQL", "threshold!": "str"},
    "InferencePool": {**_OBJECT, "spec!": "InferencePoolSpec"},
    "InferencePoolSpec": {
        "selector!": "PoolSelector",
        "targetPorts!": "list[PortNumber]",
        "endpointPickerRef!": "EndpointPickerRef",
    },
    "PoolSelector": {"matchLabels!": "Labels"},
    "PortNumber": {"number!": "int"},
    "EndpointPickerRef": {"name!": "str", "port": "PortNumber", "failureMode": ("FailOpen", "FailClose")},
    "EndpointPickerConfig": {
        "apiVersion!": "str",
        "kind!": "str",
        "plugins!": "list[PickerPlugin]",
        "schedulingProfiles!": "list[SchedulingProfile]",
    },
    "PickerPlugin": {"type!": ("queue-scorer", "kv-cache-utilization-scorer", "prefix-cache-scorer")},
    "SchedulingProfile": {"name!": "str", "plugins!": "list[ProfilePlugin]"},
    "ProfilePlugin": {"pluginRef!": ("queue-scorer", "kv-cache-utilization-scorer", "prefix-cache-scorer"), "weight": "int"},
    "HTTPRoute": {**_OBJECT, "spec!": "HTTPRouteSpec"},
    "HTTPRouteSpec": {"parentRefs!": "list[RouteRef]", "rules!": "list[RouteRule]"},
    "RouteRef": {"group!": "str", "kind!": "str", "name!": "str"},
    "RouteRule": {"matches!": "list[RouteMatch]", "backendRefs!": "list[RouteRef]", "timeouts": "RouteTimeouts"},
    "RouteMatch": {"path!": "RoutePath"},
    "RoutePath": {"type!": ("PathPrefix", "Exact"), "value!": "str"},
    "RouteTimeouts": {"request": "Duration"},
    "Kustomization": {
        "apiVersion!": "str",
        "kind!": "str",
        "namespace": "str",
        "nameSuffix": "str",
        "resources": "list[str]",
        "components": "list[str]",
        "labels": "list[KustomizeLabels]",
        "images": "list[KustomizeImage]",
        "configMapGenerator": "list[KustomizeConfigMap]",
        "patches": "list[KustomizePatch]",
        "replacements": "list[KustomizeReplacement]",
    },
    "KustomizeLabels": {"pairs!": "Labels"},
    "KustomizeImage": {"name!": "str", "newName!": "str", "newTag!": "str"},
    "KustomizeConfigMap": {
        "name!": "str",
        "envs": "list[str]",
        "files": "list[str]",
        "options": "KustomizeOptions",
    },
    "KustomizeOptions": {"disableNameSuffixHash": "bool", "labels": "Labels", "annotations": "Annotations"},
    "KustomizePatch": {
        "path": "str",
        "patch": "JsonPatch",
        "target": "KustomizeSelect",
        "options": "KustomizePatchOptions",
    },
    "KustomizePatchOptions": {"allowKindChange!": "bool"},
    "KustomizeSelect": {"kind!": "str", "name": "str"},
    "KustomizeReplacement": {"source!": "KustomizeSource", "targets!": "list[KustomizeTarget]"},
    "KustomizeSource": {"kind!": "str", "name!": "str", "fieldPath!": "str"},
    "KustomizeTarget": {"select!": "KustomizeSelect", "fieldPaths!": "list[str]", "options": "KustomizeReplaceOptions"},
    "KustomizeReplaceOptions": {"create": "bool", "delimiter": "str", "index": "int"},
    "JsonPatchStep": {"op!": ("add", "remove", "replace"), "path!": "str", "value": "anything"},
    "AdapterValues": {"rules!": "AdapterRules"},
    "AdapterRules": {"custom!": "list[AdapterRule]"},
    "AdapterRule": {
        "seriesQuery!": "PromQL",
        "resources!": "AdapterResources",
        "name!": "AdapterName",
        "metricsQuery!": "str",
    },
    "AdapterResources": {"overrides!": "AdapterOverrides"},
    "AdapterOverrides": {"namespace!": "AdapterResource", "pod!": "AdapterResource"},
    "AdapterResource": {"resource!": ("namespace", "pod")},
    "AdapterName": {"matches!": "str", "as!": "str"},
}
# Values that the API server takes for fields that the packages call strings.
VALUES: dict[tuple[str, str], tuple[str, ...]] = {
    ("V1Container", "imagePullPolicy"): ("Always", "IfNotPresent", "Never"),
    ("V1ContainerPort", "protocol"): ("TCP",),
    ("V1ServicePort", "protocol"): ("TCP",),
    ("V1ServicePort", "appProtocol"): ("http", "http2", "https", "kubernetes.io/h2c"),
    ("V1NetworkPolicyPort", "protocol"): ("TCP",),
    ("V1HTTPGetAction", "scheme"): ("HTTP", "HTTPS"),
    ("V1Toleration", "operator"): ("Exists", "Equal"),
    ("V1Toleration", "effect"): ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    ("V1SeccompProfile", "type"): ("RuntimeDefault",),
    ("V1DeploymentStrategy", "type"): ("RollingUpdate", "Recreate"),
    ("V1EmptyDirVolumeSource", "medium"): ("Memory",),
    ("V1TopologySpreadConstraint", "whenUnsatisfiable"): ("ScheduleAnyway", "DoNotSchedule"),
    ("V1PodDisruptionBudgetSpec", "unhealthyPodEvictionPolicy"): ("AlwaysAllow", "IfHealthyBudget"),
    ("V2MetricSpec", "type"): ("Pods",),
    ("V2MetricTarget", "type"): ("AverageValue", "Value", "Utilization"),
    ("V2HPAScalingPolicy", "type"): ("Pods", "Percent"),
    ("V1beta1MetricsSpec", "type"): ("External", "Resource", "PodMetric"),
    ("V1beta1ExternalMetrics", "backend"): ("prometheus",),
    ("V1beta1MetricTarget", "type"): ("AverageValue", "Value", "Utilization"),
    ("V1beta1ModelSpec", "protocolVersion"): ("v2", "grpc-v2"),
    ("V1beta1ModelFormat", "name"): ("huggingface", "gguf", "triton-repository"),
    ("V1alpha1SupportedModelFormat", "name"): ("huggingface", "gguf", "triton-repository"),
}
# Maps whose keys may be anything for their schema: the keys that mean something to somebody.
KEYS: dict[str, frozenset[str]] = {
    "Labels": frozenset(
        (
            "app.kubernetes.io/name",
            "app.kubernetes.io/part-of",
            "grafana_dashboard",
            "kubernetes.io/metadata.name",
            "octavo/clients",
        )
    ),
    "Annotations": frozenset(
        (
            "autoscaling.knative.dev/target",
            "config.kubernetes.io/local-config",
            "prometheus.kserve.io/path",
            "prometheus.kserve.io/port",
            "serving.knative.dev/progress-deadline",
            "serving.kserve.io/autoscalerClass",
            "serving.kserve.io/deploymentMode",
        )
    ),
    "NodeLabels": frozenset(("nvidia.com/gpu.present",)),
    "Resources": frozenset(("cpu", "memory", "nvidia.com/gpu")),
}
# Fields of the packages' types whose maps those are.
MAPS: dict[str, str] = {
    "labels": "Labels",
    "matchLabels": "Labels",
    "annotations": "Annotations",
    "nodeSelector": "NodeLabels",
    "limits": "Resources",
    "requests": "Resources",
    "selector": "Labels",
}
