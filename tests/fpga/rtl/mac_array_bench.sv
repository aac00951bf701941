// SPDX-License-Identifier: Apache-2.0
//
// Both versions of the array side by side on the same random steps: they must agree in every cycle, and with sums that
// are computed here one product at a time.

`default_nettype none

module mac_array_bench
  import accel_pkg::*;
  import core_pkg::*;
(
  input  logic        clk_i,
  input  logic        rst_i,
  input  logic        go_i,
  input  logic [7:0]  pause_i,    // of 256 cycles, so many without a step
  input  logic        extreme_i,  // operands at the ends of their ranges only
  output logic [31:0] tiles_o,    // compared
  output logic [31:0] errors_o
);

  logic                                     step, last, negate, shift;
  logic [ROWS-1:0][DEPTH-1:0][ACT_BITS-1:0] act;
  logic [COLS-1:0][DEPTH-1:0][7:0]          weights;
  logic [1:0]                               done;
  logic [TILE_BITS-1:0]                     rd_tile_q;
  logic [GROUP_BITS-1:0]                    rd_group_q;
  logic [1:0][ROWS-1:0][GROUP-1:0][31:0]    data;
  logic [1:0][ROWS-1:0][ROW_SUM_BITS-1:0]   row_sum;
  logic [1:0][GROUP-1:0][COL_SUM_BITS-1:0]  col_sum;

  for (genvar i = 0; i < 2; i++) begin : gen_version
    mac_array #(
      .Packed(i == 1)
    ) u_array (
      .clk_i        (clk_i),
      .rst_i        (rst_i),
      .step_i       (step),
      .last_i       (last),
      .negate_i     (negate),
      .shift_i      (shift),
      .act_i        (act),
      .weights_i    (weights),
      .tile_done_o  (done[i]),
      .rd_tile_i    (rd_tile_q),
      .rd_group_i   (rd_group_q),
      .rd_data_o    (data[i]),
      .rd_row_sum_o (row_sum[i]),
      .rd_col_sum_o (col_sum[i])
    );
  end

  int                   acc [ROWS][COLS];
  int                   expected [TILES][ROWS][COLS];
  int                   rows_acc [ROWS], rows_expected [TILES][ROWS];
  int                   cols_acc [COLS], cols_expected [TILES][COLS];
  logic [TILE_BITS-1:0] wr_q;
  logic [TILE_BITS:0]   used_q, ready_q;   // tiles issued but not read; done but not read
  logic                 fresh_q;           // next step begins a tile

  // A tile's first step needs room; the tile is negated, or a mix of shifted and plain steps.
  function automatic int act_of(int unsigned random);
    if (extreme_i) return random[0] ? 128 : -127;
    return int'(random % 256) - 127;
  endfunction

  always_ff @(posedge clk_i) begin
    /* verilator lint_off BLKSEQ */
    step    <= 1'b0;
    last    <= 1'($urandom);
    negate  <= fresh_q ? 1'($urandom) : negate;
    shift   <= 1'($urandom);
    for (int r = 0; r < ROWS; r++) for (int j = 0; j < DEPTH; j++) act[r][j] <= ACT_BITS'(act_of($urandom));
    for (int c = 0; c < COLS; c++) for (int j = 0; j < DEPTH; j++) begin
      weights[c][j] <= extreme_i ? ($urandom % 2 == 0 ? 8'h80 : 8'h7f) : 8'($urandom);
    end
    if (go_i && 8'($urandom) >= pause_i && !(fresh_q && used_q >= 15)) begin
      step    <= 1'b1;
      last    <= $urandom % 4 == 0;
    end
    // The model sees a step in the cycle in which the arrays do.
    if (step) begin
      for (int r = 0; r < ROWS; r++) begin
        for (int c = 0; c < COLS; c++) begin
          for (int j = 0; j < DEPTH; j++) begin
            acc[r][c] += int'(signed'(act[r][j])) * int'(signed'(weights[c][j])) * (shift ? 256 : 1) * (negate ? -1 : 1);
          end
        end
        for (int j = 0; j < DEPTH; j++) rows_acc[r] += int'(signed'(act[r][j])) * (shift ? 256 : 1) * (negate ? -1 : 1);
      end
      for (int c = 0; c < COLS; c++) for (int j = 0; j < DEPTH; j++) cols_acc[c] += int'(signed'(weights[c][j]));
      if (last) begin
        for (int r = 0; r < ROWS; r++) begin
          for (int c = 0; c < COLS; c++) begin
            expected[wr_q][r][c] = acc[r][c];
            acc[r][c] = 0;
          end
          rows_expected[wr_q][r] = rows_acc[r];
          rows_acc[r] = 0;
        end
        for (int c = 0; c < COLS; c++) begin
          cols_expected[wr_q][c] = cols_acc[c];
          cols_acc[c] = 0;
        end
        wr_q <= wr_q + 1'b1;
      end
    end
    if (done[0] != done[1]) errors_o <= errors_o + 1;
    if (ready_q != 0) begin
      if (data[0] != data[1] || row_sum[0] != row_sum[1] || col_sum[0] != col_sum[1]) errors_o <= errors_o + 1;
      for (int r = 0; r < ROWS; r++) begin
        if (row_sum[1][r] != ROW_SUM_BITS'(rows_expected[rd_tile_q][r])) errors_o <= errors_o + 1;
        for (int l = 0; l < GROUP; l++) begin
          if (data[1][r][l] != expected[rd_tile_q][r][32'(rd_group_q) * GROUP + l]) errors_o <= errors_o + 1;
          if (col_sum[1][l] != COL_SUM_BITS'(cols_expected[rd_tile_q][32'(rd_group_q) * GROUP + l])) begin
            errors_o <= errors_o + 1;
          end
        end
      end
      rd_group_q <= rd_group_q + 1'b1;
      if (rd_group_q == GROUP_BITS'(TILE_GROUPS - 1)) begin
        rd_group_q <= '0;
        rd_tile_q  <= rd_tile_q + 1'b1;
        tiles_o    <= tiles_o + 1;
      end
    end
    if (rst_i) begin
      step       <= 1'b0;
      rd_tile_q  <= '0;
      rd_group_q <= '0;
      wr_q       <= '0;
      tiles_o    <= '0;
      errors_o   <= '0;
      for (int r = 0; r < ROWS; r++) begin
        for (int c = 0; c < COLS; c++) acc[r][c] = 0;
        rows_acc[r] = 0;
      end
      for (int c = 0; c < COLS; c++) cols_acc[c] = 0;
    end
    /* verilator lint_on BLKSEQ */
  end

  // What a step leaves behind is known in the cycle in which it is at the arrays.
  logic released;
  assign released = ready_q != 0 && rd_group_q == GROUP_BITS'(TILE_GROUPS - 1);
  logic fresh_now_q;
  assign fresh_q = step ? last : fresh_now_q;

  always_ff @(posedge clk_i) begin
    fresh_now_q <= rst_i || fresh_q;
    ready_q     <= rst_i ? '0 : ready_q + (TILE_BITS+1)'(done[0]) - (TILE_BITS+1)'(released);
    used_q      <= rst_i ? '0 : used_q + (TILE_BITS+1)'(step && fresh_now_q) - (TILE_BITS+1)'(released);
  end

endmodule

`default_nettype wire
