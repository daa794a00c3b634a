"""One tiny random detector per class of transformers that counts for us: model and processor, nothing downloaded."""

import transformers as tf

from support import pipezoo

LABELS = {0: "cat", 1: "dog", 2: "wine glass"}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "cat", "dog", "green", "spoon", "##s"]
SQUARE = {"height": 64, "width": 64}
EDGES = {"shortest_edge": 64, "longest_edge": 96}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
LAYERS = {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}


def resnet(*stages):
    return tf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, layer_type="basic", out_features=list(stages)
    )


def swin(*stages):
    return tf.SwinConfig(
        image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=2, out_features=list(stages)
    )


def text():
    return tf.BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )


def bert():
    return tf.BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})


def yolos(labels=LABELS):
    config = tf.YolosConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=[64, 96],
        patch_size=16,
        num_detection_tokens=10,
        id2label=labels,
        initializer_range=0.5,
    )
    return tf.YolosForObjectDetection(config), tf.YolosImageProcessor(size=EDGES)


def _rt_detr(config, model, **more):
    settings = config(
        encoder_hidden_dim=16,
        encoder_in_channels=[8, 16, 16],
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        d_model=16,
        num_queries=12,
        decoder_in_channels=[16, 16, 16],
        decoder_ffn_dim=16,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_denoising=0,
        id2label=LABELS,
        **more,
    )
    return model(settings), tf.RTDetrImageProcessor(size=SQUARE)


def rt_detr():
    stages = resnet("stage2", "stage3", "stage4")
    return _rt_detr(tf.RTDetrConfig, tf.RTDetrForObjectDetection, backbone_config=stages)


def rt_detr_v2():
    stages = resnet("stage2", "stage3", "stage4")
    return _rt_detr(tf.RTDetrV2Config, tf.RTDetrV2ForObjectDetection, backbone_config=stages)


def d_fine():
    stages = resnet("stage2", "stage3", "stage4")
    return _rt_detr(tf.DFineConfig, tf.DFineForObjectDetection, backbone_config=stages)


def deim_v2():
    stages = resnet("stage2", "stage3", "stage4")
    return _rt_detr(tf.Deimv2Config, tf.Deimv2ForObjectDetection, backbone_config=stages)


def detr():
    config = tf.DetrConfig(
        backbone_config=resnet("stage4"),
        use_timm_backbone=False,
        d_model=16,
        num_queries=12,
        id2label=LABELS,
        **LAYERS,
        **HEADS,
    )
    return tf.DetrForObjectDetection(config), tf.DetrImageProcessor(size=EDGES)


def conditional_detr():
    config = tf.ConditionalDetrConfig(
        backbone_config=resnet("stage4"),
        use_timm_backbone=False,
        d_model=16,
        num_queries=12,
        id2label=LABELS,
        **LAYERS,
        **HEADS,
    )
    return tf.ConditionalDetrForObjectDetection(config), tf.ConditionalDetrImageProcessor(size=EDGES)


def deformable_detr():
    config = tf.DeformableDetrConfig(
        backbone_config=resnet("stage2", "stage3", "stage4"),
        use_timm_backbone=False,
        num_feature_levels=3,
        d_model=32,
        num_queries=12,
        id2label=LABELS,
        **LAYERS,
        **HEADS,
    )
    return tf.DeformableDetrForObjectDetection(config), tf.DeformableDetrImageProcessor(size=EDGES)


def dab_detr():
    config = tf.DabDetrConfig(
        backbone_config=resnet("stage4"),
        use_timm_backbone=False,
        hidden_size=16,
        num_queries=12,
        id2label=LABELS,
        **LAYERS,
        **HEADS,
    )
    return tf.DabDetrForObjectDetection(config), tf.ConditionalDetrImageProcessor(size=EDGES)


def rf_detr():
    backbone = {
        "model_type": "rf_detr_dinov2",
        "image_size": 56,
        "patch_size": 14,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 4,
        "num_windows": 2,
        "window_block_indexes": [0, 1, 2],
        "out_features": ["stage2", "stage4"],
        "num_register_tokens": 0,
    }
    config = tf.RfDetrConfig(
        backbone_config=backbone,
        d_model=16,
        decoder_ffn_dim=16,
        decoder_layers=2,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        num_queries=12,
        group_detr=1,
        id2label=LABELS,
    )
    return tf.RfDetrForObjectDetection(config), tf.RfDetrImageProcessor(size={"height": 56, "width": 56})


def lw_detr():
    backbone = {
        "model_type": "lw_detr_vit",
        "image_size": 64,
        "pretrain_image_size": 64,
        "patch_size": 16,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 4,
        "window_block_indices": [0, 2],
        "out_indices": [2, 4],
        "num_windows": 4,
    }
    config = tf.LwDetrConfig(
        backbone_config=backbone,
        projector_scale_factors=[1.0],
        d_model=16,
        decoder_ffn_dim=16,
        decoder_layers=2,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        num_queries=12,
        group_detr=1,
        id2label=LABELS,
    )
    return tf.LwDetrForObjectDetection(config), tf.DeformableDetrImageProcessor(size=SQUARE)


def _owl(config, model, processor, image_processor):
    tokenizer = tf.CLIPTokenizer.from_pretrained(pipezoo.TOKENIZER, model_max_length=16)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings = config(
        text_config={**small, "vocab_size": len(tokenizer), "max_position_embeddings": 16},
        vision_config={**small, "image_size": 64, "patch_size": 16},
        projection_dim=32,
    )
    return model(settings), processor(image_processor(size=SQUARE), tokenizer)


def owl_v2():
    return _owl(tf.Owlv2Config, tf.Owlv2ForObjectDetection, tf.Owlv2Processor, tf.Owlv2ImageProcessor)


def owl_vit():
    return _owl(tf.OwlViTConfig, tf.OwlViTForObjectDetection, tf.OwlViTProcessor, tf.OwlViTImageProcessor)


def _grounding_dino(config, model):
    settings = config(
        backbone_config=swin("stage2", "stage3", "stage4"),
        text_config=text(),
        d_model=32,
        num_queries=10,
        max_text_len=32,
        **LAYERS | {"encoder_layers": 2},
        **HEADS,
    )
    return model(settings), tf.GroundingDinoProcessor(tf.GroundingDinoImageProcessor(size=EDGES), bert())


def grounding_dino():
    return _grounding_dino(tf.GroundingDinoConfig, tf.GroundingDinoForObjectDetection)


def mm_grounding_dino():
    return _grounding_dino(tf.MMGroundingDinoConfig, tf.MMGroundingDinoForObjectDetection)


def omdet_turbo():
    tokenizer = tf.CLIPTokenizer.from_pretrained(pipezoo.TOKENIZER, model_max_length=16)
    words = tf.CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=77,
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=32,
    )
    config = tf.OmDetTurboConfig(
        backbone_config=swin("stage2", "stage3", "stage4"),
        apply_layernorm_after_vision_backbone=False,
        text_config=words,
        text_projection_in_dim=32,
        text_projection_out_dim=32,
        class_embed_dim=32,
        task_encoder_hidden_dim=16,
        num_queries=10,
        encoder_hidden_dim=16,
        encoder_in_channels=[16, 32, 64],
        encoder_attention_heads=2,
        encoder_dim_feedforward=16,
        vision_features_channels=[16, 16, 16],
        decoder_hidden_dim=16,
        decoder_num_heads=2,
        decoder_num_layers=2,
        decoder_dim_feedforward=16,
        image_size=64,
        disable_custom_kernels=True,
    )
    return tf.OmDetTurboForObjectDetection(config), tf.OmDetTurboProcessor(
        tf.DetrImageProcessor(size=SQUARE), tokenizer
    )


CLOSED = [
    yolos,
    rt_detr,
    rt_detr_v2,
    d_fine,
    deim_v2,
    rf_detr,
    lw_detr,
    detr,
    conditional_detr,
    deformable_detr,
    dab_detr,
]
OPEN = [owl_v2, owl_vit, grounding_dino, mm_grounding_dino, omdet_turbo]
