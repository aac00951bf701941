// SPDX-License-Identifier: Apache-2.0
//
// A signed product of at most 9 x 8 bits out of LUTs and carry chains, where synth_ecp5 would take an 18 x 18 multiplier.
// Eight rows, each the first operand where a bit of the second is set, are added in pairs.

(* techmap_celltype = "$mul" *)
module _narrow_product (A, B, Y);
  parameter A_SIGNED = 0;
  parameter B_SIGNED = 0;
  parameter A_WIDTH = 1;
  parameter B_WIDTH = 1;
  parameter Y_WIDTH = 1;
  input [A_WIDTH-1:0] A;
  input [B_WIDTH-1:0] B;
  output [Y_WIDTH-1:0] Y;

  wire _TECHMAP_FAIL_ = !A_SIGNED || !B_SIGNED || A_WIDTH > 9 || B_WIDTH > 8;

  wire signed [8:0] a = $signed(A);
  wire signed [7:0] b = $signed(B);
  wire [4*11-1:0] pairs;
  wire [2*14-1:0] quads;

  genvar i;
  generate
    for (i = 0; i < 4; i = i + 1) begin : pair
      wire signed [8:0] low = b[2*i] ? a : 9'd0;
      wire signed [8:0] high = b[2*i+1] ? a : 9'd0;
      wire signed [9:0] upper;
      // The highest bit of the second operand counts negative.
      if (i == 3) assign upper = $signed(low[8:1]) - high;
      else assign upper = $signed(low[8:1]) + high;
      assign pairs[11*i +: 11] = {upper, low[0]};
    end
    for (i = 0; i < 2; i = i + 1) begin : quad
      wire signed [10:0] low = pairs[22*i +: 11];
      wire signed [10:0] high = pairs[22*i + 11 +: 11];
      wire signed [11:0] upper = $signed(low[10:2]) + high;
      assign quads[14*i +: 14] = {upper, low[1:0]};
    end
  endgenerate

  wire signed [13:0] low = quads[13:0];
  wire signed [13:0] high = quads[27:14];
  wire signed [12:0] upper = $signed(low[13:4]) + high;
  wire signed [16:0] product = {upper, low[3:0]};
  assign Y = product;
endmodule
