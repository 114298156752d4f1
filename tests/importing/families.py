"""Tiny models of the classes of the `transformers` package, and a sweep that imports each and says what came of it.

    python -m tests.importing.families OUT.jsonl [--only llama,bert] [--fast]

Each line of OUT.jsonl is a model under one way to call it: its number of nodes, how far model and network are apart,
and what stands in the way. Weights are random, since what is under test is the import.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from growir.backends.torch_export.caches import SWITCHES
from growir.network import Network

TOKENS = 6
CLOSE = 1e-7  # tables that a model computes in float32, such as rotary ones, stay so in the network
# What configurations call the sizes that make a model tiny. Those that a class does not have are left out.
SMALL: Mapping[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "type_vocab_size": 2,
    "embedding_size": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "ffn_dim": 48,
    "d_ff": 48,
    "d_kv": 8,
    "decoder_start_token_id": 1,
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 3,
}


@dataclass(frozen=True)
class Family:
    """One class of models.

    Attributes:
        name: How the sweep calls it.
        kind: What it reads: "text", "image", "audio" (samples of sound), "pair" (a text and the beginning of
            another), or the name of one input.
        cls: The class in transformers.
        config: What its configuration has beside the usual small sizes.
        calls: The sizes of inputs that are no plain images or tokens.
        part: The attribute of the model that is imported, such as the encoder of a model of two parts.
    """

    name: str
    kind: str
    cls: str
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    part: str = ""


def _text(name: str, cls: str, **config: Any) -> Family:
    return Family(name, "text", cls, config)


def _encoder(name: str, cls: str, part: str = "encoder", **config: Any) -> Family:
    return Family(name, "text", cls, config, part=part)


def _image(name: str, cls: str, **config: Any) -> Family:
    return Family(name, "image", cls, config)


def _audio(name: str, cls: str, **config: Any) -> Family:
    small = {
        "conv_dim": (16, 16),
        "conv_stride": (5, 2),
        "conv_kernel": (10, 3),
        "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
        "apply_spec_augment": False,
        "mask_time_prob": 0.0,
    }
    return Family(name, "audio", cls, {**small, **config})


_STAGES: dict[str, Any] = {"depths": [1, 1, 1, 1]}
_SWIN: dict[str, Any] = {
    "embed_dim": 8,
    "window_size": 2,
    "patch_size": 2,
    "depths": [2, 1],
    "num_heads": [2, 2],
    "num_attention_heads": [2, 2],
}

_EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_LATENT: dict[str, Any] = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}

FAMILIES: Sequence[Family] = (
    _text("gpt2", "GPT2Model"),
    _text("gpt2-lm", "GPT2LMHeadModel"),
    _text("gpt_neo", "GPTNeoModel", attention_types=[[["global", "local"], 1]], num_hidden_layers=2, window_size=4),
    _text("gpt_neox", "GPTNeoXModel"),
    _text("gpt_neox-lm", "GPTNeoXForCausalLM"),
    _text("gptj", "GPTJModel", rotary_dim=4),
    _text("gpt_bigcode", "GPTBigCodeModel"),
    _text("openai", "OpenAIGPTModel"),
    _text("codegen", "CodeGenModel", rotary_dim=4),
    _text("ctrl", "CTRLModel", dff=48),
    _text("opt", "OPTModel", word_embed_proj_dim=32),
    _text("opt-lm", "OPTForCausalLM", word_embed_proj_dim=32),
    _text("bloom", "BloomModel"),
    _text("mpt", "MptModel", d_model=32, n_heads=4, n_layers=2, max_seq_len=32),
    _text("llama", "LlamaModel"),
    _text("llama-lm", "LlamaForCausalLM"),
    _text("llama-cls", "LlamaForTokenClassification"),
    _text("mistral", "MistralModel", sliding_window=4),
    _text("mistral-lm", "MistralForCausalLM"),
    _text("ministral", "MinistralModel", sliding_window=4),
    _text("qwen2", "Qwen2Model"),
    _text("qwen2-lm", "Qwen2ForCausalLM"),
    _text("qwen3", "Qwen3Model"),
    _text("qwen3-lm", "Qwen3ForCausalLM"),
    _text("gemma", "GemmaModel"),
    _text("gemma-lm", "GemmaForCausalLM"),
    _text("gemma2", "Gemma2Model", sliding_window=4),
    _text("gemma2-lm", "Gemma2ForCausalLM", sliding_window=4),
    _text("gemma3", "Gemma3TextModel", sliding_window=4),
    _text("gemma3-lm", "Gemma3ForCausalLM", sliding_window=4),
    _text("phi", "PhiModel"),
    _text("phi3", "Phi3Model"),
    _text("falcon", "FalconModel"),
    _text("stablelm", "StableLmModel"),
    _text("olmo", "OlmoModel"),
    _text("olmo2", "Olmo2Model"),
    _text("olmo3", "Olmo3Model", sliding_window=4),
    _text("granite", "GraniteModel"),
    _text("cohere", "CohereModel"),
    _text("cohere2", "Cohere2Model", sliding_window=4),
    _text("smollm3", "SmolLM3Model"),
    _text("starcoder2", "Starcoder2Model"),
    _text("persimmon", "PersimmonModel"),
    _text("nemotron", "NemotronModel"),
    _text("helium", "HeliumModel"),
    _text("glm", "GlmModel"),
    _text("glm4", "Glm4Model"),
    _text("exaone4", "Exaone4Model", sliding_window=4),
    _text("arcee", "ArceeModel"),
    _text("apertus", "ApertusModel"),
    _text("seed_oss", "SeedOssModel"),
    _text("ernie4_5", "Ernie4_5Model"),
    _text("hunyuan", "HunYuanDenseV1Model"),
    _text("diffllama", "DiffLlamaModel"),
    _text("bitnet", "BitNetModel"),
    _text("lfm2", "Lfm2Model", layer_types=["conv", "full_attention"]),
    _text("modernbert_decoder", "ModernBertDecoderModel", local_attention=4),
    _text("biogpt", "BioGptModel"),
    _text("xglm", "XGLMModel", d_model=32, num_layers=2, attention_heads=4, ffn_dim=48),
    _text("mamba", "MambaModel", state_size=4, expand=2, conv_kernel=3, time_step_rank=2),
    _text("rwkv", "RwkvModel", attention_hidden_size=32, context_length=32),
    _text("recurrent_gemma", "RecurrentGemmaModel", lru_width=32, attention_window_size=8, num_hidden_layers=3),
    _text("bert", "BertModel"),
    _text("bert-mlm", "BertForMaskedLM"),
    _text("bert-cls", "BertForSequenceClassification"),
    _text("bert_generation", "BertGenerationEncoder"),
    _text("megatron_bert", "MegatronBertModel"),
    _text("roberta", "RobertaModel", pad_token_id=1),
    _text("roberta-cls", "RobertaForSequenceClassification", pad_token_id=1),
    _text("roberta_prelayernorm", "RobertaPreLayerNormModel", pad_token_id=1),
    _text("xlm_roberta", "XLMRobertaModel", pad_token_id=1),
    _text("xlm_roberta_xl", "XLMRobertaXLModel", pad_token_id=1),
    _text("camembert", "CamembertModel", pad_token_id=1),
    _text("data2vec_text", "Data2VecTextModel", pad_token_id=1),
    _text("xmod", "XmodModel", pad_token_id=1, default_language="en_XX"),
    _text("albert", "AlbertModel"),
    _text("electra", "ElectraModel"),
    _text("distilbert", "DistilBertModel", hidden_dim=48),
    _text("distilbert-cls", "DistilBertForSequenceClassification", hidden_dim=48),
    _text("deberta", "DebertaModel", relative_attention=True, pos_att_type=["c2p", "p2c"]),
    _text("deberta_v2", "DebertaV2Model", relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8),
    _text("mpnet", "MPNetModel"),
    _text("modernbert", "ModernBertModel", local_attention=4, global_attn_every_n_layers=2),
    _text("mobilebert", "MobileBertModel", intra_bottleneck_size=16, true_hidden_size=16),
    _text("squeezebert", "SqueezeBertModel", embedding_size=32, q_groups=2, k_groups=2, v_groups=2,
            intermediate_groups=2),
    _text("convbert", "ConvBertModel", conv_kernel_size=3),
    _text("roformer", "RoFormerModel"),
    _text("rembert", "RemBertModel", input_embedding_size=16, output_embedding_size=16),
    _text("nystromformer", "NystromformerModel", num_landmarks=2, segment_means_seq_len=6, conv_kernel_size=3,
            max_position_embeddings=8),
    _text("fnet", "FNetModel"),
    _text("funnel", "FunnelModel", block_sizes=[1, 1], d_model=32, n_head=4, d_head=8, d_inner=48),
    _text("ibert", "IBertModel", pad_token_id=1),
    _text("esm", "EsmModel", mask_token_id=3, pad_token_id=1, position_embedding_type="rotary",
            emb_layer_norm_before=False),
    _text("ernie", "ErnieModel"),
    _text("layoutlm", "LayoutLMModel"),
    _text("lilt", "LiltModel", pad_token_id=1, channel_shrink_ratio=4, hidden_size=48),
    _text("markuplm", "MarkupLMModel", pad_token_id=1, xpath_unit_hidden_size=8, max_depth=4),
    _text("longformer", "LongformerModel", attention_window=4, pad_token_id=1),
    _text("big_bird", "BigBirdModel", attention_type="original_full"),
    _text("luke", "LukeModel", pad_token_id=1, entity_vocab_size=8, entity_emb_size=8),
    _text("splinter", "SplinterModel"),
    _text("nomic_bert", "NomicBertModel"),
    _text("eurobert", "EuroBertModel"),
    _text("flaubert", "FlaubertModel", emb_dim=32, n_layers=2, n_heads=4, n_words=64, pad_index=0),
    _text("xlm", "XLMModel", emb_dim=32, n_layers=2, n_heads=4, n_words=64, pad_index=0),
    _text("xlnet", "XLNetModel", d_model=32, n_layer=2, n_head=4, d_inner=48),
    _text("canine", "CanineModel", num_hash_buckets=32, local_transformer_stride=4, downsampling_rate=2),
    _text("yoso", "YosoModel", use_expectation=True),
    _text("dpr", "DPRQuestionEncoder"),
    _text("jina", "JinaEmbeddingsV3Model"),
    _text("cwm-lm", "CwmForCausalLM", sliding_window=4),
    _text("vaultgemma-lm", "VaultGemmaForCausalLM", sliding_window=4, query_pre_attn_scalar=8),
    _text("doge-lm", "DogeForCausalLM"),
    _text("jais2-lm", "Jais2ForCausalLM"),
    _text("nanochat-lm", "NanoChatForCausalLM"),
    _text("ministral3-lm", "Ministral3ForCausalLM"),
    _text("minicpm3-lm", "MiniCPM3ForCausalLM", **_LATENT),
    _text("youtu-lm", "YoutuForCausalLM", **_LATENT),
    _text("gpt_neox_japanese-lm", "GPTNeoXJapaneseForCausalLM", intermediate_multiple_size=2),
    _text("granite_swa-lm", "GraniteSWAForCausalLM", sliding_window=4),
    _text("mixtral-lm", "MixtralForCausalLM", num_local_experts=4),
    _text("qwen2_moe-lm", "Qwen2MoeForCausalLM", shared_expert_intermediate_size=48, **_EXPERTS),
    _text("qwen3_moe-lm", "Qwen3MoeForCausalLM", **_EXPERTS),
    _text("olmoe-lm", "OlmoeForCausalLM", **_EXPERTS),
    _text("flex_olmo-lm", "FlexOlmoForCausalLM", **_EXPERTS),
    _text("granitemoe-lm", "GraniteMoeForCausalLM", num_local_experts=4, num_experts_per_tok=2),
    _text("phimoe-lm", "PhimoeForCausalLM", num_local_experts=4),
    _text("gpt_oss-lm", "GptOssForCausalLM", num_local_experts=4, num_experts_per_tok=2, sliding_window=4),
    _text("jetmoe-lm", "JetMoeForCausalLM", num_local_experts=4, kv_channels=8),
    _text("deepseek_v2-lm", "DeepseekV2ForCausalLM", first_k_dense_replace=1, n_routed_experts=4, n_shared_experts=1,
          **{**_EXPERTS, **_LATENT}),
    _text("deepseek_v3-lm", "DeepseekV3ForCausalLM", first_k_dense_replace=2, **_LATENT),
    _text("mamba2", "Mamba2Model", state_size=8, num_heads=4, head_dim=16, n_groups=2, chunk_size=4),
    _text("falcon_mamba", "FalconMambaModel", state_size=4, conv_kernel=3, time_step_rank=2),
    Family("t5-lm", "pair", "T5ForConditionalGeneration", {"num_layers": 2, "num_heads": 4, "d_model": 32}),
    Family("bart-lm", "pair", "BartForConditionalGeneration", {"d_model": 32}),
    Family("marian-lm", "pair", "MarianMTModel", {"d_model": 32}),
    Family("t5gemma", "pair", "T5GemmaModel"),
    _encoder("t5", "T5EncoderModel", part="", num_layers=2, num_heads=4, d_model=32),
    _encoder("mt5", "MT5EncoderModel", part="", num_layers=2, num_heads=4, d_model=32),
    _encoder("umt5", "UMT5EncoderModel", part="", num_layers=2, num_heads=4, d_model=32),
    _encoder("longt5", "LongT5EncoderModel", part="", num_layers=2, num_heads=4, d_model=32, local_radius=3),
    _encoder("bart", "BartModel", d_model=32),
    _encoder("mbart", "MBartModel", d_model=32),
    _encoder("pegasus", "PegasusModel", d_model=32),
    _encoder("marian", "MarianModel", d_model=32),
    _encoder("blenderbot", "BlenderbotModel", d_model=32),
    _encoder("blenderbot_small", "BlenderbotSmallModel", d_model=32),
    _encoder("m2m_100", "M2M100Model", d_model=32),
    _encoder("plbart", "PLBartModel", d_model=32),
    _encoder("led", "LEDModel", d_model=32, attention_window=4),
    _encoder("prophetnet", "ProphetNetModel", num_encoder_layers=2, num_decoder_layers=2,
            num_encoder_attention_heads=4),
    _encoder("fsmt", "FSMTModel", d_model=32, langs=["en", "de"], src_vocab_size=64, tgt_vocab_size=64),
    _text("clip_text", "CLIPTextModel"),
    _text("clip_text-proj", "CLIPTextModelWithProjection", projection_dim=16),
    _text("siglip_text", "SiglipTextModel"),
    _text("clap_text", "ClapTextModel", pad_token_id=1),
    _text("chinese_clip_text", "ChineseCLIPTextModel"),
    _text("owlvit_text", "OwlViTTextModel"),
    _text("x_clip_text", "XCLIPTextModel"),
    _text("blip_text", "BlipTextModel", is_decoder=False),
    _image("vit", "ViTModel"),
    _image("vit-cls", "ViTForImageClassification"),
    _image("vit_msn", "ViTMSNModel"),
    _image("vit_hybrid", "ViTMAEModel", mask_ratio=0.0),
    _image("deit", "DeiTModel"),
    _image("deit-cls", "DeiTForImageClassification"),
    _image("beit", "BeitModel", use_relative_position_bias=True),
    _image("data2vec_vision", "Data2VecVisionModel", use_relative_position_bias=True),
    _image("swin", "SwinModel", **_SWIN),
    _image("swinv2", "Swinv2Model", **_SWIN),
    _image("swin2sr", "Swin2SRModel", embed_dim=8, window_size=4, patch_size=1, depths=[1], num_heads=[2],
            num_attention_heads=[2]),
    _image("dpt", "DPTModel"),
    _image("yolos", "YolosModel", image_size=[32, 32]),
    _image("convnext", "ConvNextModel", patch_size=2, num_hidden_layers=4, depths=[1, 1, 1, 1], hidden_sizes=[8, 8,
            16, 16]),
    _image("convnextv2", "ConvNextV2Model", patch_size=2, num_hidden_layers=4, depths=[1, 1, 1, 1], hidden_sizes=[8,
            8, 16, 16]),
    _image("dinov2", "Dinov2Model"),
    _image("dinov2_registers", "Dinov2WithRegistersModel"),
    _image("dinov3_vit", "DINOv3ViTModel"),
    _image("dinov3_convnext", "DINOv3ConvNextModel", depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16]),
    _image("ijepa", "IJepaModel"),
    _image("mobilevit", "MobileViTModel", hidden_sizes=[16, 16, 16], neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 16],
            patch_size=2),
    _image("mobilevitv2", "MobileViTV2Model", width_multiplier=0.25, patch_size=2, image_size=64),
    _image("mobilenet_v1", "MobileNetV1Model", depth_multiplier=0.25),
    _image("mobilenet_v2", "MobileNetV2Model", depth_multiplier=0.25),
    _image("efficientnet", "EfficientNetModel", width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=320),
    _image("resnet", "ResNetModel", embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1]),
    _image("regnet", "RegNetModel", embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], groups_width=4),
    _image("bit", "BitModel", embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], num_groups=2),
    _image("clip_vision", "CLIPVisionModel"),
    _image("clip_vision-proj", "CLIPVisionModelWithProjection", projection_dim=16),
    _image("siglip_vision", "SiglipVisionModel"),
    _image("aimv2_vision", "Aimv2VisionModel"),
    _image("blip_vision", "BlipVisionModel"),
    _image("pvt", "PvtModel", **{**_STAGES, "hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 2, 2, 2],
                                "sequence_reduction_ratios": [4, 2, 1, 1]}),
    _image("pvt_v2", "PvtV2Model", **{**_STAGES, "hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 2, 2, 2],
                                      "sr_ratios": [4, 2, 1, 1]}),
    _image("segformer", "SegformerModel", hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1],
           num_attention_heads=[1, 2, 2, 2], sr_ratios=[4, 2, 1, 1]),
    _image("cvt", "CvtModel", embed_dim=[8, 8, 16], num_heads=[1, 2, 2], depth=[1, 2, 3], image_size=32,
           patch_sizes=[7, 3, 3]),
    _image("poolformer", "PoolFormerModel", hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]),
    _image("levit", "LevitModel", image_size=64, hidden_sizes=[16, 16, 16], num_attention_heads=[2, 2, 2],
           depths=[1, 1, 1], key_dim=[4, 4, 4], patch_size=16, attention_ratio=[2, 2, 2], mlp_ratio=[2, 2, 2]),
    _image("focalnet", "FocalNetModel", embed_dim=8, hidden_sizes=[8, 16], depths=[1, 1], focal_levels=[1, 1],
           focal_windows=[3, 3], patch_size=2),
    _image("hiera", "HieraModel", embed_dim=8, image_size=[32, 32], patch_size=[3, 3], patch_stride=[4, 4],
           depths=[1, 1], num_heads=[1, 2], embed_dim_multiplier=2.0, num_query_pool=1, masked_unit_size=[4, 4],
           patch_padding=[1, 1]),
    _image("swiftformer", "SwiftFormerModel", depths=[1, 1, 1, 1], embed_dims=[8, 8, 16, 16], image_size=64),
    _image("textnet", "TextNetModel"),
    _image("hgnet_v2", "HGNetV2Backbone"),
    _image("vitdet", "VitDetModel"),
    _image("glpn", "GLPNModel", hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 2],
           sr_ratios=[4, 2, 1, 1]),
    _image("imagegpt", "ViTForMaskedImageModeling"),
    _image("segformer-cls", "SegformerForSemanticSegmentation", hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1],
           num_attention_heads=[1, 2, 2, 2], sr_ratios=[4, 2, 1, 1], decoder_hidden_size=16),
    _image("donut_swin", "DonutSwinModel", **_SWIN),
    _image("maskformer_swin", "SwinBackbone", **_SWIN),
    Family("videomae", "pixel_values", "VideoMAEModel", {"num_frames": 4}, {"pixel_values": (4, 3, 32, 32)}),
    Family("vivit", "pixel_values", "VivitModel", {"num_frames": 4, "tubelet_size": [2, 8, 8]},
           {"pixel_values": (4, 3, 32, 32)}),
    Family("timesformer", "pixel_values", "TimesformerModel", {"num_frames": 4}, {"pixel_values": (4, 3, 32, 32)}),
    _audio("wav2vec2", "Wav2Vec2Model"),
    _audio("wav2vec2-ctc", "Wav2Vec2ForCTC"),
    _audio("wav2vec2-stable", "Wav2Vec2Model", do_stable_layer_norm=True, feat_extract_norm="layer"),
    _audio("hubert", "HubertModel"),
    _audio("wavlm", "WavLMModel"),
    _audio("unispeech", "UniSpeechModel"),
    _audio("unispeech_sat", "UniSpeechSatModel"),
    _audio("data2vec_audio", "Data2VecAudioModel"),
    _audio("wav2vec2_conformer", "Wav2Vec2ConformerModel", position_embeddings_type="rotary"),
    _audio("sew", "SEWModel", squeeze_factor=2),
    _audio("sew_d", "SEWDModel", squeeze_factor=2),
    Family("wav2vec2_bert", "input_features", "Wav2Vec2BertModel", {"feature_projection_input_dim": 16,
           "position_embeddings_type": "relative_key"}, {"input_features": (8, 16)}),
    Family("whisper", "input_features", "WhisperModel", {"d_model": 32, "num_mel_bins": 8, "max_source_positions": 8},
           {"input_features": (8, 16)}, part="encoder"),
    Family("ast", "input_values", "ASTModel", {"max_length": 24, "num_mel_bins": 16, "frequency_stride": 8,
           "time_stride": 8}, {"input_values": (24, 16)}),
    Family("speech_to_text", "input_features", "Speech2TextModel", {"d_model": 32, "input_feat_per_channel": 8,
           "conv_channels": 16, "max_source_positions": 32}, {"input_features": (16, 8)}, part="encoder"),
    Family("patchtst", "past_values", "PatchTSTModel", {"num_input_channels": 2, "context_length": 16,
           "patch_length": 4, "patch_stride": 4, "d_model": 16, "ffn_dim": 24}, {"past_values": (16, 2)}),
    Family("patchtsmixer", "past_values", "PatchTSMixerModel", {"num_input_channels": 2, "context_length": 16,
           "patch_length": 4, "patch_stride": 4, "d_model": 16, "num_layers": 2}, {"past_values": (16, 2)}),
    Family("decision_transformer", "inputs_embeds", "DecisionTransformerGPT2Model", {"n_embd": 32, "n_layer": 2,
           "n_head": 4}, {"inputs_embeds": (6, 32)}),
)  # fmt: skip


def made(family: Family) -> nn.Module:
    """A tiny model of the class, in eval mode, its weights drawn with one seed."""
    kind: Any = getattr(importlib.import_module("transformers"), family.cls)
    config_of = kind.config_class
    known = {*getattr(config_of, "__dataclass_fields__", {}), *config_of.attribute_map}
    torch.manual_seed(0)
    config = config_of(**{**{key: value for key, value in SMALL.items() if key in known}, **family.config})
    model: nn.Module = kind(config)
    if family.part:
        model = getattr(model, family.part)
    return model.eval()


def calls(family: Family) -> Mapping[str, Mapping[str, torch.Tensor]]:
    """The ways in which the sweep calls a model, by name."""
    generator = torch.Generator().manual_seed(0)

    def floats(*sizes: int) -> torch.Tensor:
        return torch.randn(2, *sizes, generator=generator)

    if family.kind == "text":
        ids = torch.randint(3, 60, (2, TOKENS), generator=generator)
        mask = torch.ones(2, TOKENS, dtype=torch.int64)
        mask[1, TOKENS - 2 :] = 0
        return {"ids": {"input_ids": ids}, "mask": {"input_ids": ids, "attention_mask": mask}}
    if family.kind == "pair":
        ids, others = (torch.randint(3, 60, (2, TOKENS - k), generator=generator) for k in range(2))
        return {"pair": {"input_ids": ids, "decoder_input_ids": others}}
    if family.kind == "image":
        size = family.config.get("image_size", 32)
        size = size if isinstance(size, int) else size[0]
        return {"image": {"pixel_values": floats(3, size, size)}}
    if family.kind == "audio":
        return {"audio": {"input_values": floats(400)}}
    return {"plain": {name: floats(*sizes) for name, sizes in family.inputs.items()}}


class InDoubles(TorchFunctionMode):
    """float64 wherever the model's code says float32, as norms and softmax do: then only the import may differ."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        func = torch.Tensor.double if func is torch.Tensor.float else func
        given = {key: _doubled(value) for key, value in (kwargs or {}).items()}
        return func(*map(_doubled, args), **given)


def _doubled(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def in_doubles(example: Mapping[str, torch.Tensor], size: int) -> dict[str, torch.Tensor]:
    """Rows of an example in another order, as many as are asked for, in float64."""
    rows = torch.arange(size) % 2
    return {key: (x.double() if x.is_floating_point() else x).flip(0)[rows] for key, x in example.items()}


def apart(model: nn.Module, net: Network, example: Mapping[str, torch.Tensor]) -> float:
    """By how much model and network differ in float64, as a part of the largest output, at two batch sizes."""
    module, model = net.to_torch().double().eval(), copy.deepcopy(model).double().eval()
    worst = 0.0
    for size in (2, 3):
        batch = in_doubles(example, size)
        with torch.no_grad(), InDoubles():
            wanted = tree_leaves(model(**batch))
        with torch.no_grad():
            found = module(*batch.values())
        given = found if isinstance(found, tuple) else (found,)
        for one, two in zip((y for y in wanted if isinstance(y, torch.Tensor)), given, strict=False):
            worst = max(worst, float((one - two).abs().max()) / max(float(one.abs().max()), 1e-3))
    return worst


def imported(family: Family, way: str, *, check: bool = True) -> tuple[nn.Module, Network, dict[str, torch.Tensor]]:
    """A model without caches, its network and the example it was imported with."""
    import growir

    model, example = made(family), dict(calls(family)[way])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        network = growir.from_torch(model, example, check=check)
    for part in model.modules():  # the network gives no cache
        config: Any = getattr(part, "config", None)
        for name in SWITCHES:
            if getattr(config, name, None) is True:
                setattr(config, name, False)
    return model, network, example


def main() -> None:
    """Append a line for each model and way to call it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="", help="names of families, separated by commas")
    parser.add_argument("--fast", action="store_true", help="import without the import's own comparison")
    args = parser.parse_args()
    only = set(args.only.split(",")) - {""}
    with args.out.open("a", encoding="utf-8") as out:
        for family in FAMILIES:
            for way in calls(family) if not only or family.name in only else ():
                found = _tried(family, way, check=not args.fast)
                out.write(json.dumps(found) + "\n")
                out.flush()
                print(family.name, way, found.get("error", "imports"), flush=True)


def _tried(family: Family, way: str, *, check: bool) -> dict[str, Any]:
    """The line of one import."""
    begun = time.time()
    found: dict[str, Any] = {"family": family.name, "call": way}
    try:
        model, network, example = imported(family, way, check=check)
        found |= {"nodes": len(network.graph.nodes), "apart": apart(model, network, example)}
        if found["apart"] > CLOSE:
            found["error"] = f"the network is {found['apart']:.1e} apart"
    except Exception as error:  # whatever stands in the way is what the sweep is after
        found["error"] = f"{type(error).__name__}: {error}"
    return {**found, "seconds": round(time.time() - begun, 1)}


if __name__ == "__main__":
    main()
