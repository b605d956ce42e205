"""The one table of engine arguments: what becomes of each key that a ``model.json`` or a caller may give. Knows names, not types.

The names are those of vLLM's engine arguments up to 0.26, older spellings included, and our own ``max_queue_size``,
``itl_target_ms`` and ``deterministic``. A key is honoured (a field of ``ModelSettings``), or accepted without effect and logged, or
refused by name unless its value asks for nothing. A value of null always asks for nothing.
"""

import difflib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

MODEL_JSON = "model.json"


class Treatment(StrEnum):
    """What becomes of a key."""

    HONOURED = "honoured"
    NO_EFFECT = "accepted without effect"
    REFUSED = "refused"


class EngineArgument(NamedTuple):
    """One row. ``harmless`` are the values with which a refused key is accepted, because they are what happens anyway."""

    treatment: Treatment
    reason: str = ""
    harmless: tuple[object, ...] = ()


_HONOURED = """
model served_model_name tokenizer revision tokenizer_revision download_dir hf_token load_format dtype device max_model_len
max_num_seqs max_num_batched_tokens gpu_memory_utilization kv_cache_memory_bytes block_size enable_prefix_caching
enable_chunked_prefill itl_target_ms deterministic scheduling_policy seed max_logprobs max_queue_size hf_overrides
tool_call_parser reasoning_parser
"""

_NO_EFFECT = {
    "the engine chooses how it executes a model": """
        enforce_eager compilation_config cudagraph_capture_sizes cuda_graph_sizes max_cudagraph_capture_size
        max_seq_len_to_capture optimization_level performance_mode attention_backend attention_config kernel_config
        enable_flashinfer_autotune disable_cascade_attn disable_async_output_proc async_scheduling fail_on_environ_validation
        additional_config ir_op_priority linear_backend use_fp64_gumbel numa_bind numa_bind_nodes numa_bind_cpus
        enable_cumem_allocator enable_fault_tolerance fault_tolerance_config
    """,
    "logs, metrics and traces are settings of the server": """
        disable_log_stats disable_log_requests enable_log_requests max_log_len aggregate_engine_logging
        enable_logging_iteration_details kv_cache_metrics kv_cache_metrics_sample cudagraph_metrics enable_mfu_metrics
        enable_mm_processor_stats enable_layerwise_nvtx_tracing show_hidden_metrics_for_version otlp_traces_endpoint
        collect_detailed_traces profiler_config ray_workers_use_nsight per_request_spec_decode_metrics jit_monitor_mode
        jit_monitor_verbose
    """,
    "preempted requests are recomputed and never swapped": "swap_space preemption_mode",
    "every step has one budget of tokens": """
        max_num_partial_prefills max_long_partial_prefills long_prefill_token_threshold num_scheduler_steps
        multi_step_stream_outputs scheduler_delay_factor num_lookahead_slots use_v2_block_manager stream_interval
        disable_hybrid_kv_cache_manager max_num_scheduled_tokens scheduler_reserve_full_isl prefill_schedule_interval watermark
    """,
    "the engine decides how prefixes are found and kept": """
        prefix_caching_hash_algo prefix_cache_retention_interval prefix_match_unit
    """,
    "the server decides how long it drains": "shutdown_timeout",
    "only configuration, tokenizer and safetensors files are read": """
        code_revision ignore_patterns pt_load_map_location safetensors_load_strategy safetensors_prefetch_num_threads
        model_loader_extra_config max_parallel_loading_workers use_tqdm_on_load
    """,
    "an engine runs on one device": """
        distributed_executor_backend worker_use_ray engine_use_ray disable_custom_all_reduce distributed_timeout_seconds
        master_addr master_port node_rank data_parallel_rank data_parallel_start_rank data_parallel_size_local
        data_parallel_address data_parallel_rpc_port data_parallel_hybrid_lb data_parallel_external_lb data_parallel_backend
        dcp_comm_backend dcp_kv_cache_interleave_size cp_kv_cache_interleave_size disable_nccl_for_dp_synchronization
        dp_sync_interval enable_nccl_comm_suspend
    """,
    "no mixture of experts is served": """
        enable_expert_parallel moe_backend all2all_backend eplb_config enable_eplb expert_placement_strategy
        num_redundant_experts eplb_window_size eplb_step_interval eplb_log_balancedness ubatch_size
        dbo_decode_token_threshold dbo_prefill_token_threshold enable_ep_weight_filter enable_bf16x3_router_gemm
    """,
    "no state-space model is served": """
        mamba_config mamba_cache_dtype mamba_ssm_cache_dtype mamba_block_size mamba_cache_mode mamba_backend
        mamba_ssu_algorithm enable_mamba_cache_stochastic_rounding mamba_cache_philox_rounds use_replayssm
        replayssm_buffer_len gdn_prefill_backend kda_prefill_backend
    """,
    "models are served with text alone": """
        limit_mm_per_prompt media_io_kwargs mm_processor_kwargs mm_processor_cache_gb mm_processor_cache_type
        mm_shm_cache_max_object_size_mb mm_encoder_tp_mode mm_encoder_attn_backend mm_tensor_ipc disable_mm_preprocessor_cache
        disable_chunked_mm_input interleave_mm_strings skip_mm_profiling video_pruning_rate language_model_only
        enable_multimodal_encoder_data_parallel allowed_local_media_path allowed_media_domains mm_hasher_algorithm
        mm_encoder_attn_dtype mm_encoder_fp8_scale_path mm_encoder_fp8_scale_save_path mm_encoder_fp8_scale_save_margin
        mm_processor_device mm_ipc_gpu_memory_gb mm_device_do_normalize video_pruning_method renderer_num_workers
        ec_manager_config
    """,
    "adapters are not served": """
        max_loras max_lora_rank max_cpu_loras lora_dtype lora_extra_vocab_size long_lora_scaling_factors fully_sharded_loras
        default_mm_loras enable_tower_connector_lora specialize_active_lora max_prompt_adapters max_prompt_adapter_token
        lora_target_modules enable_mixed_moe_lora_format enable_moe_shared_loras
    """,
    "the grammar and the dialect are chosen by the request": """
        structured_outputs_config guided_decoding_backend guided_decoding_disable_fallback
        guided_decoding_disable_any_whitespace guided_decoding_disable_additional_properties reasoning_config
    """,
    "the Triton interface has defaults of its own for sampling": "generation_config",
    "tokenising takes no pool of its own": "tokenizer_pool_size tokenizer_pool_type tokenizer_pool_extra_config",
    "nothing is quantised": "allow_deprecated_quantization quantization_param_path kv_cache_dtype_skip_layers",
}

_ONE_DEVICE = "a model runs on one device"
_NO_IMPORTS = "nothing that a repository names is ever imported"
_NO_SPECULATION = "speculative decoding is not available"
_NO_OFFLOAD = "weights and pages are not moved off the device"
_GENERATION_ONLY = "only text generation is served"
_USE_OVERRIDES = "it is set through hf_overrides"

_REFUSED: dict[str, tuple[str, tuple[object, ...]]] = {
    "trust_remote_code": ("weights are read and never run", (False,)),
    "quantization": ("weights are not quantised by the engine", ("gguf",)),
    "quantization_config": ("weights are not quantised by the engine", ()),
    "kv_cache_dtype": ("the cache has the model's own dtype", ("auto",)),
    "calculate_kv_scales": ("the cache has the model's own dtype", (False,)),
    "override_attention_dtype": ("attention has the model's own dtype", ()),
    "enable_lora": ("adapters are not available", (False,)),
    "enable_lora_bias": ("adapters are not available", (False,)),
    "enable_prompt_adapter": ("adapters are not available", (False,)),
    "qlora_adapter_name_or_path": ("adapters are not available", ()),
    "tensor_parallel_size": (_ONE_DEVICE, (1,)),
    "pipeline_parallel_size": (_ONE_DEVICE, (1,)),
    "data_parallel_size": (_ONE_DEVICE, (1,)),
    "prefill_context_parallel_size": (_ONE_DEVICE, (1,)),
    "decode_context_parallel_size": (_ONE_DEVICE, (1,)),
    "nnodes": (_ONE_DEVICE, (1,)),
    "enable_dbo": (_ONE_DEVICE, (False,)),
    "enable_elastic_ep": (_ONE_DEVICE, (False,)),
    "speculative_config": (_NO_SPECULATION, ()),
    "spec_method": (_NO_SPECULATION, ()),
    "spec_model": (_NO_SPECULATION, ()),
    "spec_tokens": (_NO_SPECULATION, (0,)),
    "speculative_model": (_NO_SPECULATION, ()),
    "speculative_model_quantization": (_NO_SPECULATION, ()),
    "speculative_draft_tensor_parallel_size": (_NO_SPECULATION, ()),
    "speculative_max_model_len": (_NO_SPECULATION, ()),
    "speculative_disable_by_batch_size": (_NO_SPECULATION, ()),
    "speculative_disable_mqa_scorer": (_NO_SPECULATION, (False,)),
    "num_speculative_tokens": (_NO_SPECULATION, (0,)),
    "ngram_prompt_lookup_max": (_NO_SPECULATION, ()),
    "ngram_prompt_lookup_min": (_NO_SPECULATION, ()),
    "spec_decoding_acceptance_method": (_NO_SPECULATION, ("rejection_sampler",)),
    "typical_acceptance_sampler_posterior_threshold": (_NO_SPECULATION, ()),
    "typical_acceptance_sampler_posterior_alpha": (_NO_SPECULATION, ()),
    "disable_logprobs_during_spec_decoding": (_NO_SPECULATION, (True, False)),
    "cpu_offload_gb": (_NO_OFFLOAD, (0,)),
    "cpu_offload_params": (_NO_OFFLOAD, ()),
    "offload_backend": (_NO_OFFLOAD, ("auto",)),
    "offload_group_size": (_NO_OFFLOAD, (0,)),
    "offload_num_in_group": (_NO_OFFLOAD, (1,)),
    "offload_prefetch_step": (_NO_OFFLOAD, (1,)),
    "offload_params": (_NO_OFFLOAD, ()),
    "kv_offloading_size": (_NO_OFFLOAD, (0,)),
    "kv_offloading_backend": (_NO_OFFLOAD, ("native",)),
    "kv_sharing_fast_prefill": ("layers do not share pages", (False,)),
    "kv_transfer_config": ("pages are not sent to other engines", ()),
    "kv_events_config": ("pages are not sent to other engines", ()),
    "ec_transfer_config": ("pages are not sent to other engines", ()),
    "weight_transfer_config": ("weights are not changed while they serve", ()),
    "enable_sleep_mode": ("an engine that should free its memory is unloaded", (False,)),
    "max_num_queued_reqs": ("the queue is limited by max_queue_size", ()),
    "max_num_queued_tokens": ("the queue is limited by max_queue_size", ()),
    "num_gpu_blocks_override": ("the size of the cache is set by kv_cache_memory_bytes", ()),
    "task": (_GENERATION_ONLY, ("auto", "generate")),
    "runner": (_GENERATION_ONLY, ("auto", "generate")),
    "convert": (_GENERATION_ONLY, ("auto", "none")),
    "pooler_config": (_GENERATION_ONLY, ()),
    "override_pooler_config": (_GENERATION_ONLY, ()),
    "diffusion_config": (_GENERATION_ONLY, ()),
    "enable_return_routed_experts": (_GENERATION_ONLY, (False,)),
    "return_sampling_mask": (_GENERATION_ONLY, (False,)),
    "enable_trace_replay": (_GENERATION_ONLY, (False,)),
    "mm_encoder_only": (_GENERATION_ONLY, (False,)),
    "enable_prompt_embeds": ("a prompt is text", (False,)),
    "enable_mm_embeds": ("a prompt is text", (False,)),
    "tokens_only": ("an answer is text", (False,)),
    "skip_tokenizer_init": ("a prompt is text", (False,)),
    "tokenizer_mode": ("only fast tokenizers are read", ("auto", "hf", "fast")),
    "config_format": ("a model is described by config.json or by its GGUF file", ("auto", "hf")),
    "hf_config_path": ("a model is described by config.json or by its GGUF file", ()),
    "model_impl": ("models run on the engine's own code", ("auto", "vllm")),
    "rope_scaling": (_USE_OVERRIDES, ()),
    "rope_theta": (_USE_OVERRIDES, ()),
    "disable_sliding_window": ("the length of a model is set by max_model_len", (False,)),
    "logprobs_mode": ("log probabilities are those of the unprocessed logits", ("raw_logprobs",)),
    "override_generation_config": ("sampling is set by the request", ()),
    "override_neuron_config": ("an engine runs on a CPU or on CUDA", ()),
    "model_weights": ("weights are named by model", ()),
    "model_class_overrides": (_NO_IMPORTS, ()),
    "logits_processors": (_NO_IMPORTS, ()),
    "logits_processor_pattern": (_NO_IMPORTS, ()),
    "io_processor_plugin": (_NO_IMPORTS, ()),
    "reasoning_parser_plugin": (_NO_IMPORTS, ()),
    "scheduler_cls": (_NO_IMPORTS, ()),
    "worker_cls": (_NO_IMPORTS, ("auto",)),
    "worker_extension_cls": (_NO_IMPORTS, ()),
}


def _rows() -> Iterator[tuple[str, EngineArgument]]:
    yield from ((name, EngineArgument(Treatment.HONOURED)) for name in _HONOURED.split())
    for reason, names in _NO_EFFECT.items():
        yield from ((name, EngineArgument(Treatment.NO_EFFECT, reason)) for name in names.split())
    for name, (reason, harmless) in _REFUSED.items():
        yield name, EngineArgument(Treatment.REFUSED, reason, harmless)


ENGINE_ARGUMENTS: dict[str, EngineArgument] = dict(_rows())


class Split(NamedTuple):
    """Arguments by what becomes of them: what to act on, a sentence for each without effect, one for each that is refused."""

    kept: dict[str, object]
    notes: list[str]
    problems: list[str]


def honoured(arguments: Mapping[str, object], source: str = MODEL_JSON) -> Split:
    """Split what ``source`` holds by key. A key that nobody knows is refused with the nearest known name."""
    kept: dict[str, object] = {}
    notes: list[str] = []
    problems: list[str] = []
    for name, value in arguments.items():
        row = ENGINE_ARGUMENTS.get(name)
        if row is None:
            problems.append(_unknown(name, source))
        elif value is None:
            continue
        elif row.treatment is Treatment.HONOURED:
            kept[name] = value
        elif row.treatment is Treatment.NO_EFFECT:
            notes.append(f"{source} sets '{name}', which has no effect: {row.reason}.")
        elif not _asks_for_nothing(value, row):
            problems.append(f"{source} sets '{name}', which is not supported: {row.reason}.")
    return Split(kept, notes, problems)


def _asks_for_nothing(value: object, row: EngineArgument) -> bool:
    """Whether ``value`` is empty or harmless; strings stand for numbers and booleans, as vllm_backend lets them."""
    text = str(value).strip().lower().removesuffix(".0")
    return value in ("", [], {}) or text in {str(one).lower() for one in row.harmless}


def _unknown(name: str, source: str) -> str:
    nearest = difflib.get_close_matches(name, ENGINE_ARGUMENTS, n=1)
    hint = f"the nearest known one is '{nearest[0]}'" if nearest else "no known one is like it"
    return f"{source} has a key '{name}' that is not an engine argument; {hint}."
